// Command handler writes what virt-operator would install for virt-handler, its DaemonSet and RBAC, with images named `IMAGE`.
package main

import (
	"fmt"
	"log"

	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/components"
	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/rbac"
	"kubevirt.io/kubevirt/pkg/virt-operator/util"
	"sigs.k8s.io/yaml"
)

const namespace = "kubevirt"

func main() {
	config := &util.KubeVirtDeploymentConfig{
		Namespace:            namespace,
		AdditionalProperties: map[string]string{util.AdditionalPropertiesNamePullPolicy: "Never"},
	}
	config.VirtHandlerImage, config.VirtLauncherImage = "IMAGE", "IMAGE"
	objects := []any{components.NewHandlerDaemonSet(config, "", "", "")}
	for _, object := range rbac.GetAllHandler(namespace) {
		objects = append(objects, object)
	}
	for _, object := range objects {
		document, err := yaml.Marshal(object)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("---\n%s", document)
	}
}
