// Command manifests writes what virt-operator would install: KubeVirt's CustomResourceDefinitions into DIR/crds, and its webhook
// configurations, APIServices and RBAC into one file each.
package main

import (
	"log"
	"os"
	"path/filepath"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/components"
	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/rbac"
	"sigs.k8s.io/yaml"
)

const namespace = "kubevirt"

var definitions = []func() (*apiextensions.CustomResourceDefinition, error){
	components.NewKubeVirtCrd,
	components.NewVirtualMachineCrd,
	components.NewVirtualMachineInstanceCrd,
	components.NewVirtualMachineInstanceMigrationCrd,
	components.NewPresetCrd,
	components.NewReplicaSetCrd,
	components.NewVirtualMachinePoolCrd,
	components.NewMigrationPolicyCrd,
	components.NewVirtualMachineSnapshotCrd,
	components.NewVirtualMachineSnapshotContentCrd,
	components.NewVirtualMachineRestoreCrd,
	components.NewVirtualMachineExportCrd,
	components.NewVirtualMachineBackupCrd,
	components.NewVirtualMachineBackupTrackerCrd,
	components.NewVirtualMachineCloneCrd,
	components.NewVirtualMachineInstancetypeCrd,
	components.NewVirtualMachineClusterInstancetypeCrd,
	components.NewVirtualMachinePreferenceCrd,
	components.NewVirtualMachineClusterPreferenceCrd,
}

func main() {
	directory := os.Args[1]
	must(os.MkdirAll(filepath.Join(directory, "crds"), 0o755))
	for _, define := range definitions {
		definition, err := define()
		must(err)
		write(filepath.Join(directory, "crds", definition.Name+".yaml"), definition)
	}
	write(filepath.Join(directory, "webhooks.yaml"),
		components.NewVirtAPIMutatingWebhookConfiguration(namespace),
		components.NewVirtAPIValidatingWebhookConfiguration(namespace))
	services := []any{}
	for _, service := range components.NewVirtAPIAPIServices(namespace) {
		services = append(services, service)
	}
	write(filepath.Join(directory, "apiservices.yaml"), services...)
	rules := []any{}
	for _, object := range rbac.GetAllApiServer(namespace) {
		rules = append(rules, object)
	}
	for _, object := range rbac.GetAllController(namespace, true) {
		rules = append(rules, object)
	}
	for _, object := range rbac.GetAllCluster() {
		rules = append(rules, object)
	}
	write(filepath.Join(directory, "rbac.yaml"), rules...)
}

func write(path string, objects ...any) {
	text := []byte{}
	for _, object := range objects {
		document, err := yaml.Marshal(object)
		must(err)
		text = append(append(text, "---\n"...), document...)
	}
	must(os.WriteFile(path, text, 0o644))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
