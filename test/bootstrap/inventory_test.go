package bootstrap

import (
	"fmt"
	"strings"

	"github.com/mi-lb/mi-lb/test/hosts"
)

// packages are those that bootstrap installs. Machines have them already, with their
// units disabled, as installing them on all would take most of the test's time:
// [TestOneMachineIsEverything] is where they are installed.
var packages = []string{
	"zookeeper", "docker.io", "iptables", "haproxy", "dnsmasq-base", "chrony", "logrotate", "unzip", "xz-utils",
	"libnetty-java", "libslf4j-java", "libsasl2-modules", "default-jre-headless",
}

// host is a line of an inventory.
func host(h *hosts.Hosts, name string) string {
	return fmt.Sprintf("%s ansible_host=%s", name, h.Machine(name).Address)
}

// vars is a section of variables that all inventories have.
func vars(h *hosts.Hosts, more ...string) string {
	return fmt.Sprintf(`
[all:vars]
ansible_user=%s
%s
domain=apps.test
zookeeper_heap=96m
%s
%s
`, hosts.Admin, key(h), sources(), strings.Join(more, "\n"))
}

// key is the variable with the key that logins accept.
func key(h *hosts.Hosts) string { return "ansible_ssh_private_key_file=" + h.KeyFile }

// sources are where programs come from.
func sources() string {
	return fmt.Sprintf("consul_file=%s\nmesos_file=%s\nmarathon_file=%s\nmarathon_java_package=none\nmarathon_java_opts=-Xmx64m",
		programs.consul, programs.mesos, programs.marathon)
}

// small is a datacenter of two machines.
func small(h *hosts.Hosts, more ...string) string {
	return fmt.Sprintf(`[dc=dc1]
%s
%s

[role=control]
one

[role=worker]
two

[role=edge]
two
%s`, host(h, "one"), host(h, "two"), vars(h, more...))
}
