# What the Vagrantfiles here have in common: machines of Debian 12 on a private
# network, of which the last one to come up runs mi-lb bootstrap for all.

PROGRAMS = File.expand_path("programs", __dir__)
MISSING = %w[mi-lb consul mesos.tar.gz marathon.tgz].reject { |name| File.exist?(File.join(PROGRAMS, name)) }

# Lines of an inventory that say where programs come from.
VARIABLES = <<~VARIABLES
  consul_file=/programs/consul
  mesos_file=/programs/mesos.tar.gz
  marathon_file=/programs/marathon.tgz
  domain=apps.test
VARIABLES

# machines defines one for each name, with its address and memory in MiB. The block
# gets the last of them, on which the platform is built from.
def machines(config, all)
  config.vm.box = "debian/bookworm64"
  # One key, which is no secret, lets the last machine reach the others.
  config.ssh.insert_key = false
  config.vm.synced_folder ".", "/vagrant", disabled: true
  config.trigger.before [:up, :provision] do |trigger|
    trigger.ruby do
      abort "put #{MISSING.join(", ")} into #{PROGRAMS}; see #{File.join(__dir__, "README.md")}" unless MISSING.empty?
    end
  end
  all.each_with_index do |(name, (address, memory)), i|
    config.vm.define name do |machine|
      machine.vm.hostname = name
      machine.vm.network "private_network", ip: address
      %w[virtualbox libvirt].each do |provider|
        machine.vm.provider(provider) { |p| p.memory = memory; p.cpus = 2 }
      end
      next unless i == all.size - 1
      machine.vm.synced_folder PROGRAMS, "/programs", type: "rsync"
      yield machine
    end
  end
end

# platform defines the machines of datacenters, and an inventory of them: for each
# datacenter machines by name, with address and memory. A name says the role.
def platform(datacenters)
  all = datacenters.values.reduce(:merge)
  groups = datacenters.map { |dc, machines| ["dc=#{dc}", machines.map { |name, (address, _)| "#{name} ansible_host=#{address}" }] }
  groups += %w[control worker edge].map { |role| ["role=#{role}", all.keys.grep(/\b#{role}-/)] }
  groups << ["all:vars", ["ansible_user=vagrant", "ansible_ssh_private_key_file=/home/vagrant/key", VARIABLES.strip]]
  text = groups.map { |name, lines| "[#{name}]\n#{lines.join("\n")}\n" }.join("\n")
  Vagrant.configure("2") { |config| machines(config, all) { |machine| inventory(machine, text) } }
end

# inventory puts an inventory onto the machine, with the key that reaches the others.
def inventory(machine, text)
  machine.vm.provision "file", source: File.join(Dir.home, ".vagrant.d", "insecure_private_key"), destination: "/home/vagrant/key"
  machine.vm.provision "shell", privileged: false, inline: <<~SHELL
    set -eu
    chmod 600 key
    cat >inventory <<'INVENTORY'
    #{text.strip}
    INVENTORY
    sudo install -m 755 /programs/mi-lb /usr/local/bin/mi-lb
    mi-lb bootstrap keyscan -i inventory --yes
    mi-lb bootstrap -i inventory --yes
  SHELL
end
