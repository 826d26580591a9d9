// SPDX-License-Identifier: GPL-2.0
/* A driver that makes two VFs at most, whatever it is asked for, as drivers do whose hardware has too little left. */
#include <linux/module.h>
#include <linux/pci.h>

static int fewer_probe(struct pci_dev *dev, const struct pci_device_id *id)
{
	return pci_enable_device(dev);
}

static void fewer_remove(struct pci_dev *dev)
{
	pci_disable_sriov(dev);
	pci_disable_device(dev);
}

static int fewer_configure(struct pci_dev *dev, int count)
{
	int answer;

	if (!count) {
		pci_disable_sriov(dev);
		return 0;
	}
	count = min(count, 2);
	answer = pci_enable_sriov(dev, count);
	return answer ? answer : count;
}

/* It takes what driver_override gives it. */
static struct pci_driver fewer_driver = {
	.name = "fewer_vfs",
	.probe = fewer_probe,
	.remove = fewer_remove,
	.sriov_configure = fewer_configure,
};
module_pci_driver(fewer_driver);
MODULE_DESCRIPTION("Makes fewer VFs than asked for");
MODULE_LICENSE("GPL");
