package routing

import (
	"slices"
	"strconv"
	"strings"
)

// Keys that no one writes: what Marathon-lb's labels and Fabio's tags become
// where they mean something else than the key of the same name.
const (
	// keyPathPrefix is HAPROXY_<n>_PATH: arguments of path_beg.
	keyPathPrefix = "\x00path-prefix"
	// keyFabio is everything behind "urlprefix-".
	keyFabio = "\x00fabio"
	// keyLater is a label that is known and not supported yet.
	keyLater = "\x00later"
	// keyRestrict is a label that restricts who may use the service, and is not
	// supported yet.
	keyRestrict = "\x00restrict"
)

const (
	fabioPrefix      = "urlprefix-"
	marathonLBPrefix = "HAPROXY_"
)

// marathonLBKeys are the labels that mean the same as a key of ours.
var marathonLBKeys = map[string]string{
	"ENABLED": "enable",
	"GROUP":   "group",
	"VHOST":   "host",
	"PATH":    keyPathPrefix,
	"PORT":    "port",
	"MODE":    "mode",
	"BALANCE": "balance",
	"STICKY":  "sticky",

	"AUTH":                        keyRestrict,
	"BACKEND_NETWORK_ALLOWED_ACL": keyRestrict,
}

// marathonLBNotNeeded orders ACLs by hand; here the longest path is always first.
var marathonLBNotNeeded = []string{"BACKEND_WEIGHT"}

// marathonLB reads one of Marathon-lb's labels: HAPROXY_GROUP, or HAPROXY_<n>_<WHAT>.
func marathonLB(name, value string) (w wish, index int, ok bool) {
	rest, ok := strings.CutPrefix(name, marathonLBPrefix)
	if !ok {
		return wish{}, -1, false
	}
	what, index := rest, -1
	if first, after, found := strings.Cut(rest, "_"); found {
		if n, err := strconv.Atoi(first); err == nil && n >= 0 {
			what, index = after, n
		}
	}
	if slices.Contains(marathonLBNotNeeded, what) {
		return wish{}, -1, false
	}
	key, known := marathonLBKeys[what]
	if !known || (index < 0 && what != "GROUP") {
		key = keyLater
	}
	return wish{key: key, value: value, written: name}, index, true
}

// fabioRoute is what one urlprefix- tag asks for.
type fabioRoute struct {
	host  string // "" for any
	path  string
	port  string
	proto string
	strip string
	// later and restrict are its options that are not supported yet.
	later, restrict []string
}

// parseFabio takes "host/path opt=value …" apart; the parts are not validated.
func parseFabio(s string) fabioRoute {
	fields := strings.Fields(s)
	if len(fields) == 0 {
		return fabioRoute{}
	}
	var r fabioRoute
	if port, ok := strings.CutPrefix(fields[0], ":"); ok {
		r.port = port
	} else if slash := strings.IndexByte(fields[0], '/'); slash >= 0 {
		r.host, r.path = fields[0][:slash], fields[0][slash:]
	} else {
		r.host = fields[0]
	}
	for _, option := range fields[1:] {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "proto":
			r.proto = value
		case "strip":
			r.strip = value
		case "allow", "deny", "auth":
			r.restrict = append(r.restrict, name)
		default:
			r.later = append(r.later, name)
		}
	}
	return r
}
