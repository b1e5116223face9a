// Package render writes down for HAProxy what a routing table says.
//
// In come a [routing.Table], the operator's [Settings] and the templates; out go
// [Files] (haproxy.cfg and the maps that it names) and the arguments of
// `add server`, both from the same template. [Write] puts files on disk as a
// whole or not at all, [Compare] says how one set differs from another, and
// [Lint] reads what an operator's own templates produce.
//
// The package runs no HAProxy and talks to none. Every value of a table passes an
// encoder before a template sees it: no table, however made, adds a line or a
// directive.
//
// # What templates may call
//
// Besides consul-template's functions:
//
//	settings        the operator's settings, encoded: settings.HTTP, settings.Timeouts.Connect …
//	backends        the backends, encoded: .Name, .HTTP, .Balance, .Servers …
//	ports           the service ports that have a frontend of their own
//	httpPorts       those among them that speak HTTP
//	handovers       the sockets by which a worker that was replaced reaches the next one
//	rows "hosts"    the rows of a map, encoded: .Key, .Value; also "app-ids", "server-names", "ports"
//	serverNames     whether there are routes by server name (TLS passthrough)
//	pathOf "x.map"  the path of a file that is rendered too, as one word
//	table           the routing table as it is, nothing in it encoded
//
// and, for values of table, services and keys, the encoders: name (a backend's or
// server's), quote (one word of the configuration), logFormat (the same where a log
// format is read), hostName, urlPath, number, duration, address, mapRow KEY VALUE.
//
// The fragment "server" gets one server (.Name, .Address, .Weight, .Backup, .MaxConn,
// .Check, .Disabled) and gives one line; "backend" gets one of backends.
package render
