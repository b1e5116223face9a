package cluster

import (
	"net"
	"regexp"
	"strings"

	"github.com/mi-lb/mi-lb/provision/inventory"
)

var (
	loginName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@\\-]*\$?$`)
	sshHost   = regexp.MustCompile(`^[A-Za-z0-9_:][A-Za-z0-9_.:%-]*$`)
)

// connection reads how a host is reached.
func (r *reader) connection(h *inventory.Host) Connection {
	c := Connection{Host: h.Name(), Become: BecomeAuto}
	kind, at := r.text(h, "ansible_connection")
	switch kind {
	case "", "ssh", "smart", "paramiko", "paramiko_ssh":
	case "local":
		c.Local = true
	default:
		r.refuse(at, "connection", "ansible_connection of host %s is %q; only ssh and local are possible", h.Name(), kind)
	}
	host, at := r.text(h, "ansible_host")
	if host != "" {
		c.Host = host
	} else {
		at = h.At()
	}
	if !sshHost.MatchString(c.Host) {
		r.refuse(at, "connection", "%q of host %s is no host name or address", c.Host, h.Name())
	}
	c.Port, _ = r.number(h, "ansible_port", 1, 65535)
	c.User, at = r.text(h, "ansible_user")
	if c.User != "" && !loginName.MatchString(c.User) {
		r.refuse(at, "connection", "ansible_user of host %s is %q, which is no login", h.Name(), c.User)
	}
	c.Password = r.secret(h, "ansible_password")
	c.KeyFile, _ = r.text(h, "ansible_ssh_private_key_file")
	c.HostKeys = r.list(h, "host_key")
	if _, _, ok := r.value(h, "ansible_become"); ok {
		c.Become = BecomeNever
		if r.boolean(h, "ansible_become", true) {
			c.Become = BecomeAlways
		}
	}
	c.BecomePassword = r.secret(h, "ansible_become_password")
	if user, at := r.text(h, "ansible_become_user"); user != "" && user != "root" {
		r.refuse(at, "connection", "ansible_become_user of host %s is %q; the platform is installed by root", h.Name(), user)
	}
	if method, at := r.text(h, "ansible_become_method"); method != "" && method != "sudo" {
		r.refuse(at, "connection", "ansible_become_method of host %s is %q; only sudo is possible", h.Name(), method)
	}
	for _, name := range aliases("ansible_ssh_common_args") {
		if v, ok, err := h.Var(name); err == nil && ok {
			r.arguments(h, &c, name, v)
		} else if err != nil {
			r.refuse(v.At, "variable", "%s", strings.TrimPrefix(err.Error(), v.At.String()+": "))
		}
	}
	return c
}

// arguments reads what Ansible would put on ssh's command line.
func (r *reader) arguments(h *inventory.Host, c *Connection, name string, v inventory.Variable) {
	text, _ := inventory.Text(v.Value)
	words, err := inventory.Words(text)
	if err != nil {
		r.refuse(v.At, "connection", "%s of host %s: %v", name, h.Name(), err)
		return
	}
	for i := 0; i < len(words); i++ {
		option := words[i]
		argument := ""
		if len(option) >= 2 && option[0] == '-' && strings.ContainsRune("JoFilp", rune(option[1])) {
			if argument = option[2:]; argument == "" && i+1 < len(words) {
				i++
				argument = words[i]
			}
			option = option[:2]
		}
		switch option {
		case "-J":
			r.jumps(h, c, name, v.At, argument)
		case "-F":
			c.ConfigFile = argument
		case "-i":
			if c.KeyFile == "" {
				c.KeyFile = argument
			}
		case "-o":
			key, value, ok := strings.Cut(argument, "=")
			if !ok {
				key, value, _ = strings.Cut(argument, " ")
			}
			value = strings.Trim(strings.TrimSpace(value), `"`)
			switch strings.ToLower(strings.TrimSpace(key)) {
			case "proxyjump":
				r.jumps(h, c, name, v.At, value)
			case "proxycommand":
				r.proxyCommand(h, c, name, v.At, value)
			case "identityfile":
				if c.KeyFile == "" {
					c.KeyFile = value
				}
			case "stricthostkeychecking", "userknownhostsfile":
				r.odd(v.At, "ignored-option", "%s of host %s: %s is ignored; mi-lb checks host keys with the known_hosts of the cluster (mi-lb bootstrap keyscan)", name, h.Name(), key)
			case "controlmaster", "controlpersist", "controlpath", "forwardagent", "serveraliveinterval", "serveralivecountmax", "connecttimeout", "preferredauthentications", "identitiesonly", "loglevel", "compression", "batchmode":
			default:
				r.odd(v.At, "ignored-option", "%s of host %s: the option %s is ignored", name, h.Name(), key)
			}
		case "-C", "-q", "-4", "-6", "-A", "-T", "-t", "-v":
		default:
			r.odd(v.At, "ignored-option", "%s of host %s: %s is ignored", name, h.Name(), option)
		}
	}
}

func (r *reader) jumps(h *inventory.Host, c *Connection, name string, at inventory.Position, list string) {
	if strings.EqualFold(list, "none") {
		c.Jumps = nil
		return
	}
	var jumps []string
	for jump := range strings.SplitSeq(list, ",") {
		jump = strings.TrimPrefix(strings.TrimSpace(jump), "ssh://")
		user, host, ok := strings.Cut(jump, "@")
		if !ok {
			user, host = "x", jump
		}
		if name, port, err := net.SplitHostPort(host); err == nil && port != "" {
			host = name
		}
		if !loginName.MatchString(user) || !sshHost.MatchString(strings.Trim(host, "[]")) {
			r.refuse(at, "connection", "%s of host %s: %q is no [user@]host[:port] to jump over", name, h.Name(), jump)
			return
		}
		jumps = append(jumps, jump)
	}
	c.Jumps = jumps
}

// proxyCommand understands the one command that everybody writes: ssh -W %h:%p host.
func (r *reader) proxyCommand(h *inventory.Host, c *Connection, name string, at inventory.Position, command string) {
	words, err := inventory.Words(command)
	if err != nil || len(words) == 0 {
		r.refuse(at, "connection", "%s of host %s: the ProxyCommand cannot be understood", name, h.Name())
		return
	}
	target, user, port, forwards := "", "", "", false
	for i := 1; i < len(words); i++ {
		word := words[i]
		if len(word) < 2 || word[0] != '-' {
			target = word
			continue
		}
		argument := word[2:]
		if strings.ContainsRune("WlpioFJ", rune(word[1])) && argument == "" && i+1 < len(words) {
			i++
			argument = words[i]
		}
		switch word[1] {
		case 'W':
			forwards = argument == "%h:%p" || argument == "[%h]:%p"
		case 'l':
			user = argument
		case 'p':
			port = argument
		}
	}
	if words[0] != "ssh" && !strings.HasSuffix(words[0], "/ssh") || !forwards || target == "" {
		r.refuse(at, "connection", `%s of host %s: only ProxyCommand="ssh -W %%h:%%p HOST" is understood; write -o ProxyJump=HOST`, name, h.Name())
		return
	}
	if user != "" && !strings.Contains(target, "@") {
		target = user + "@" + target
	}
	if port != "" {
		target += ":" + port
	}
	r.jumps(h, c, name, at, target)
}
