// SPDX-License-Identifier: GPL-2.0
/*
 * Links that NICs with several ports or an embedded switch give one PCI function, on top of the link that it has.
 *
 * They carry no packets. `link` names the link whose function they get. `ports` is the number of further ports, `representors`
 * that of links which stand for VFs. While `refuse` is set, their queues cannot be read.
 */
#include <linux/etherdevice.h>
#include <linux/ethtool.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <net/net_namespace.h>

#define MOST 8

static char *link = "";
module_param(link, charp, 0444);
static uint ports;
module_param(ports, uint, 0444);
static uint representors;
module_param(representors, uint, 0444);
static bool refuse;
module_param(refuse, bool, 0644);

struct more_link {
	bool is_port;
	unsigned int number;
};

static struct net_device *links[2 * MOST];

static int more_port_name(struct net_device *dev, char *name, size_t size)
{
	struct more_link *own = netdev_priv(dev);
	int written = snprintf(name, size, own->is_port ? "p%u" : "pf0vf%u", own->number);

	return written < size ? 0 : -EOPNOTSUPP;
}

static int more_switch(struct net_device *dev, struct netdev_phys_item_id *id)
{
	struct more_link *own = netdev_priv(dev);

	if (own->is_port)
		return -EOPNOTSUPP;
	id->id_len = 4;
	memset(id->id, 0x5a, id->id_len);
	return 0;
}

/* Spoof check and trust keep the value with which the caller says that nobody reported them. */
static int more_vf_config(struct net_device *dev, int vf, struct ifla_vf_info *info)
{
	info->vf = vf;
	eth_zero_addr(info->mac);
	return 0;
}

static netdev_tx_t more_xmit(struct sk_buff *skb, struct net_device *dev)
{
	dev_kfree_skb(skb);
	return NETDEV_TX_OK;
}

static const struct net_device_ops more_ops = {
	.ndo_start_xmit = more_xmit,
	.ndo_get_phys_port_name = more_port_name,
	.ndo_get_port_parent_id = more_switch,
	.ndo_get_vf_config = more_vf_config,
	.ndo_set_mac_address = eth_mac_addr,
};

static void more_channels(struct net_device *dev, struct ethtool_channels *channels)
{
	channels->max_combined = 4;
	channels->combined_count = 4;
}

/* The kernel asks here before it reads anything by ethtool. */
static int more_begin(struct net_device *dev)
{
	return refuse ? -EIO : 0;
}

static const struct ethtool_ops more_ethtool = {
	.begin = more_begin,
	.get_channels = more_channels,
};

static int more_add(struct device *parent, unsigned int slot, bool is_port, unsigned int number)
{
	struct net_device *dev = alloc_etherdev(sizeof(struct more_link));
	struct more_link *own;
	int answer;

	if (!dev)
		return -ENOMEM;
	own = netdev_priv(dev);
	own->is_port = is_port;
	own->number = number;
	snprintf(dev->name, IFNAMSIZ, is_port ? "port%u" : "rep%u", number);
	SET_NETDEV_DEV(dev, parent);
	dev->netdev_ops = &more_ops;
	dev->ethtool_ops = &more_ethtool;
	dev->dev_port = is_port ? number : 0;
	eth_hw_addr_random(dev);
	answer = register_netdev(dev);
	if (answer) {
		free_netdev(dev);
		return answer;
	}
	links[slot] = dev;
	return 0;
}

static void more_remove(void)
{
	unsigned int slot;

	for (slot = 0; slot < 2 * MOST; slot++) {
		if (links[slot]) {
			unregister_netdev(links[slot]);
			free_netdev(links[slot]);
		}
	}
}

static int __init more_init(void)
{
	struct net_device *own = dev_get_by_name(&init_net, link);
	struct device *parent;
	unsigned int number;
	int answer = 0;

	if (!own)
		return -ENODEV;
	parent = get_device(own->dev.parent);
	dev_put(own);
	if (!parent)
		return -ENODEV;
	if (ports > MOST || representors > MOST)
		answer = -EINVAL;
	for (number = 0; !answer && number < ports; number++)
		answer = more_add(parent, number, true, number + 1);
	for (number = 0; !answer && number < representors; number++)
		answer = more_add(parent, MOST + number, false, number);
	put_device(parent);
	if (answer)
		more_remove();
	return answer;
}

static void __exit more_exit(void)
{
	more_remove();
}

module_init(more_init);
module_exit(more_exit);
MODULE_DESCRIPTION("Further links of one PCI function");
MODULE_LICENSE("GPL");
