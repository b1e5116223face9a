// Package dns lets every machine, and the containers on it, resolve names below
// .consul through the machine's own agent.
//
// What the machine has decides how. Where systemd-resolved answers, and is new enough
// to be told a port (247), it is told to ask Consul for .consul, and to answer on
// docker0 too. Elsewhere a dnsmasq with a unit and a configuration of its own
// (mi-lb-dns.service) listens on 127.0.0.1 and on docker0, asks Consul for .consul and
// the machine's name servers for the rest. /etc/resolv.conf is then headed by
// 127.0.0.1, with the name servers that it had behind it, where it is a plain file
// that no other program has written; dns_resolv_conf decides otherwise.
//
// A program that has port 53 already is left alone: that is a problem, with advice.
package dns
