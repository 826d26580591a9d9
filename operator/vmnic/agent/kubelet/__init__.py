"""The device plugin: hands the node's VFs and whole NICs to the kubelet, and keeps them back while they are changed."""
