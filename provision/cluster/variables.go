package cluster

import "slices"

// VariableDoc describes a variable that mi-lb reads.
type VariableDoc struct {
	// Name is the variable; Also are other names it is known by.
	Name string   `json:"name"`
	Also []string `json:"also,omitempty"`
	Doc  string   `json:"doc"`
}

// Variables are all variables that this package reads, for documentation and
// for finding misspelt ones.
func Variables() []VariableDoc {
	all := []VariableDoc{
		{"ansible_host", []string{"ansible_ssh_host"}, "name or address that SSH connects to"},
		{"ansible_port", []string{"ansible_ssh_port"}, "port of the SSH server"},
		{"ansible_user", []string{"ansible_ssh_user"}, "login"},
		{"ansible_password", []string{"ansible_ssh_pass", "ansible_ssh_password"}, "password of the login"},
		{"ansible_ssh_private_key_file", []string{"ansible_private_key_file"}, "file with the private key"},
		{"ansible_ssh_common_args", []string{"ansible_ssh_extra_args"}, "-J, -o ProxyJump=, -o ProxyCommand='ssh -W %h:%p …' and -F are understood"},
		{"ansible_connection", nil, "ssh, or local for the machine mi-lb runs on"},
		{"ansible_become", []string{"ansible_sudo"}, "use sudo; without it: unless the login is root"},
		{"ansible_become_user", nil, "root; nothing else is possible"},
		{"ansible_become_method", nil, "sudo; nothing else is possible"},
		{"ansible_become_password", []string{"ansible_become_pass", "ansible_sudo_pass"}, "password that sudo asks for"},
		{"host_key", nil, "public host key, or a list of them, as in known_hosts"},
		{"consul_dc", []string{"datacenter"}, "datacenter of the host or group"},
		{"consul_is_server", nil, "whether the Consul agent of a role=control host is a server"},
		{"consul_primary_datacenter", []string{"consul_acl_datacenter"}, "datacenter that owns ACLs; the first one named, and then for good"},
		{"private_ipv4", []string{"private_ip", "private_address"}, "address that nodes of the datacenter use"},
		{"public_ipv4", []string{"wan_address", "consul_advertise_addr_wan"}, "address that other datacenters use"},
		{"private_interface", nil, "network interface whose address is used, where no address is given"},
		{"zk_id", []string{"zookeeper_id", "zookeeper_myid"}, "ZooKeeper's myid, 1 to 255; given once and stored where it is not set"},
		{"mesos_attributes", nil, "attributes of the agent: rack:2;zone:a"},
		{"mesos_resources", nil, "resources of the agent"},
		{"domain", []string{"mi_lb_domain", "haproxy_domain"}, "domain under which services are published"},
		{"allow_even_control", nil, "accept an even number of servers in a datacenter"},
		{"consul_gossip_key", nil, "ignored: the secrets bundle has one"},
	}
	for _, c := range Components() {
		name := string(c)
		all = append(all,
			VariableDoc{name + "_version", nil, "version of " + name},
			VariableDoc{name + "_source", []string{name + "_package_source"}, "package, url, file, image or preinstalled"},
			VariableDoc{name + "_package", nil, "name of the package"},
			VariableDoc{name + "_url", nil, "where the node downloads it; needs " + name + "_sha256"},
			VariableDoc{name + "_sha256", nil, "checksum of what is downloaded or uploaded"},
			VariableDoc{name + "_file", nil, "file on the operator's machine that is uploaded"},
			VariableDoc{name + "_image", nil, "container image"},
		)
	}
	return all
}

// aliases are all names of a variable, the preferred one first.
func aliases(name string) []string {
	for _, v := range Variables() {
		if v.Name == name {
			return append([]string{name}, v.Also...)
		}
	}
	return []string{name}
}

// originals are variables of the platform that mi-lb succeeds, which it has no
// use for; they are not misspelt.
var originals = []string{
	"consul_servers_group", "mesos_mode", "mesos_cluster", "zookeeper_service_tags", "security_group", "provider", "role",
	"os_auth_url", "os_tenant_name", "os_tenant_id", "os_net_id", "os_flavor_ram", "os_flavor_include", "os_image_name",
	"ansible_ssh_key", "ansible_ssh_pubkey", "ansible_python_interpreter", "lvm_physical_device", "publicly_routable",
}

func isOriginal(name string) bool { return slices.Contains(originals, name) }
