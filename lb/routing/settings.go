package routing

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"

	"github.com/mi-lb/mi-lb/watch"
)

// settings are what a service asks for, parsed.
type settings struct {
	enable *bool
	// service is another name to be known under.
	service string
	// routes asked for by host and path.
	routes []askedRoute
	// ports asked for, beside an app's service ports.
	ports []askedPort
	// replacePort says that ports takes the place of the app's service port
	// (Marathon-lb's HAPROXY_<n>_PORT).
	replacePort bool
	mode        mode
	balance     string
	// balanceHTTPOnly says that TCP does not have the balance.
	balanceHTTPOnly bool
	sticky          bool
	locality        Locality
	groups          []string
	check           Check
	timeouts        Timeouts
	maxConn         int
	// restricted names what the service asks for to keep others out and cannot
	// have yet.
	restricted string
}

type mode string

const (
	modeUnsaid      mode = ""
	modeHTTP        mode = "http"
	modeTCP         mode = "tcp"
	modePassthrough mode = "passthrough"
)

type askedRoute struct {
	host string // "*" for any
	path string // begins with "/"
	// prefix: path is one of characters, not of segments.
	prefix bool
	strip  string
	via    string
}

type askedPort struct {
	number int
	via    string
}

// A key is one word of the vocabulary that services speak: how its value gets
// into the settings. What apply returns as an error is completed with the value.
type key struct {
	apply func(s *settings, value string) error
	// later says that the key is known and not supported yet.
	later bool
	// restricts says that it keeps somebody out: until it is supported, a service
	// that asks for it is not published, as it would be open to everyone.
	restricts bool
}

// vocabulary is all words, but for host, path, path.strip and weight, which are not
// single values of a service: see routes and weights.
func vocabulary() map[string]key {
	later, restricts := key{later: true}, key{later: true, restricts: true}
	return map[string]key{
		"enable": {apply: func(s *settings, v string) error {
			// What is neither is more likely a mistyped "false" than a wish to be
			// on the internet.
			b, _ := parseBool(v)
			s.enable = &b
			return nil
		}},
		"service": {apply: func(s *settings, v string) (err error) {
			s.service, err = parseServiceName(v)
			return err
		}},
		"port": {apply: func(s *settings, v string) error {
			n, err := parsePort(v)
			if err == nil {
				s.ports = append(s.ports, askedPort{number: n})
			}
			return err
		}},
		"mode": {apply: func(s *settings, v string) error {
			switch m := mode(strings.ToLower(v)); m {
			case modeHTTP, modeTCP, modePassthrough:
				s.mode = m
				return nil
			}
			return fmt.Errorf("is none of %s, %s, %s", modeHTTP, modeTCP, modePassthrough)
		}},
		"balance": {apply: func(s *settings, v string) error {
			balance, httpOnly, err := parseBalance(v)
			if err == nil {
				s.balance, s.balanceHTTPOnly = balance, httpOnly
			}
			return err
		}},
		"sticky":         {apply: func(s *settings, v string) (err error) { s.sticky, err = parseBool(v); return }},
		"locality":       {apply: func(s *settings, v string) (err error) { s.locality, err = parseLocality(v); return }},
		"group":          {apply: func(s *settings, v string) error { s.groups = list(v); return nil }},
		"maxconn":        {apply: func(s *settings, v string) (err error) { s.maxConn, err = parseNumber(v, 1, 1_000_000); return }},
		"check.disable":  {apply: func(s *settings, v string) (err error) { s.check.Disabled, err = parseBool(v); return }},
		"check.path":     {apply: func(s *settings, v string) (err error) { s.check.Path, err = parsePath(v); return }},
		"check.interval": {apply: func(s *settings, v string) (err error) { s.check.Interval, err = parseDuration(v); return }},
		"check.timeout":  {apply: func(s *settings, v string) (err error) { s.check.Timeout, err = parseDuration(v); return }},
		"timeout.connect": {apply: func(s *settings, v string) (err error) {
			s.timeouts.Connect, err = parseDuration(v)
			return
		}},
		"timeout.server": {apply: func(s *settings, v string) (err error) { s.timeouts.Server, err = parseDuration(v); return }},
		"timeout.tunnel": {apply: func(s *settings, v string) (err error) { s.timeouts.Tunnel, err = parseDuration(v); return }},

		"backend.proto":  later,
		"redirect.https": later,
		"hsts":           later,
		"cert":           later,
		"ratelimit":      later,
		"auth":           restricts,
		"allow":          restricts,
	}
}

// elsewhere are the keys that are read by routes and weights.
var elsewhere = []string{"host", "path", "path.strip", "weight", keyPathPrefix, keyFabio}

// Vocabulary are the keys that services can use, sorted, without their prefix.
func Vocabulary() []string {
	words := slices.AppendSeq([]string{"host", "path", "path.strip", "weight"}, maps.Keys(vocabulary()))
	slices.Sort(words)
	return words
}

// readSettings makes one of what all instances and apps of a service ask for. Of
// values that contradict each other an app's wins, then the most common, then
// the smaller.
func readSettings(service string, all []profile) (settings, []watch.Finding) {
	if len(all) == 0 {
		return settings{}, nil
	}
	r := settingsReader{service: service, vocabulary: vocabulary()}
	values := map[string][]wish{} // by key, best first
	for _, p := range all {
		for _, w := range p.wishes {
			if !slices.Contains(elsewhere, w.key) {
				values[w.key] = append(values[w.key], w)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		r.read(name, values[name])
	}
	for _, p := range all {
		r.routes(p)
	}
	r.s.routes = dedupe(r.s.routes)
	return r.s, r.findings
}

func dedupe(routes []askedRoute) []askedRoute {
	seen := map[askedRoute]bool{}
	return slices.DeleteFunc(routes, func(route askedRoute) bool {
		route.via = ""
		if seen[route] {
			return true
		}
		seen[route] = true
		return false
	})
}

type settingsReader struct {
	service    string
	vocabulary map[string]key
	s          settings
	findings   []watch.Finding
}

func (r *settingsReader) find(code string, w wish, message, instead string) {
	r.findings = append(r.findings, watch.Finding{
		Code: code, Source: w.source, Service: r.service, Key: watch.Printable(w.written), Message: message, Instead: instead,
	})
}

func (r *settingsReader) invalid(w wish, err error, instead string) {
	r.find("invalid-value", w, fmt.Sprintf("%q %s", watch.Printable(w.value), err), instead)
}

func (r *settingsReader) read(name string, wishes []wish) {
	first := wishes[0]
	k, known := r.vocabulary[name]
	switch {
	case name == keyLater:
		for _, w := range wishes {
			r.find("not-supported-yet", w, "is not supported yet", "ignored")
		}
		return
	case name == keyRestrict, k.restricts:
		r.restrict(first)
		return
	case !known:
		message := "is no key that services can use"
		if near := nearest(name, Vocabulary()); near != "" {
			message += fmt.Sprintf("; did you mean %q?", keyPrefix+"."+near)
		}
		r.find("unknown-key", first, message, "ignored")
		return
	case k.later:
		r.find("not-supported-yet", first, "is not supported yet", "ignored")
		return
	}
	for i, w := range wishes {
		if i > 0 && w.value == first.value {
			continue
		}
		if i > 0 {
			r.find("instances-disagree", w, fmt.Sprintf("%q here, %q elsewhere", watch.Printable(w.value), watch.Printable(first.value)),
				fmt.Sprintf("%q is used", watch.Printable(first.value)))
			continue
		}
		before := r.s
		if err := k.apply(&r.s, w.value); err != nil {
			r.s = before
			r.invalid(w, err, "ignored, the default holds")
		} else if name == "port" {
			r.s.ports[len(r.s.ports)-1].via = w.written
			r.s.replacePort = strings.HasPrefix(w.written, marathonLBPrefix)
		}
	}
}

func (r *settingsReader) restrict(w wish) {
	r.s.restricted = watch.Printable(w.written)
	r.find("not-supported-yet", w, "is not supported yet",
		"the service is not published, since without it everyone would have access")
}

// routes pairs the hosts with the paths of one profile.
func (r *settingsReader) routes(p profile) {
	var hosts, paths []askedRoute
	strip, stripAll := "", false
	for _, w := range p.wishes {
		switch w.key {
		case "host":
			for _, name := range list(w.value) {
				host, err := parseHost(name)
				if err != nil {
					r.find("invalid-value", w, fmt.Sprintf("%q %s", watch.Printable(name), err), "this host is ignored")
					continue
				}
				hosts = append(hosts, askedRoute{host: host, via: w.written})
			}
			if len(list(w.value)) == 0 {
				r.invalid(w, errEmpty, "ignored")
			}
		case "path", keyPathPrefix:
			for _, text := range list(w.value) {
				path, err := parsePath(text)
				if err != nil {
					r.find("invalid-value", w, fmt.Sprintf("%q %s", watch.Printable(text), err), "this path is ignored")
					continue
				}
				paths = append(paths, askedRoute{path: path, prefix: w.key == keyPathPrefix && path != "/", via: w.written})
			}
			if len(paths) == 0 {
				// Without any of its paths the whole host would be routed.
				paths = append(paths, askedRoute{path: ""})
			}
		case "path.strip":
			if b, err := parseBool(w.value); err == nil {
				stripAll = b
			} else if path, err := parsePath(w.value); err == nil && path != "/" {
				strip = path
			} else {
				r.find("invalid-value", w, fmt.Sprintf("%q is neither true, false nor a path", watch.Printable(w.value)), "nothing is stripped")
			}
		case keyFabio:
			r.fabio(w)
		case "weight":
		}
	}
	if len(hosts) == 0 {
		for _, path := range paths {
			if path.path != "" {
				r.find("path-without-host", wish{written: path.via, source: p.wishes[0].source},
					"there is no host to go with the path", "ignored; add "+keyPrefix+".host")
				break
			}
		}
		return
	}
	if len(paths) == 0 {
		paths = []askedRoute{{path: "/"}}
	}
	for _, host := range hosts {
		for _, path := range paths {
			if path.path == "" {
				continue
			}
			route := askedRoute{host: host.host, path: path.path, prefix: path.prefix, via: host.via}
			switch {
			case stripAll && path.path != "/":
				route.strip = path.path
			case strip != "":
				route.strip = strip
			}
			r.s.routes = append(r.s.routes, route)
		}
	}
}

func (r *settingsReader) fabio(w wish) {
	asked := parseFabio(w.value)
	if len(asked.restrict) > 0 {
		r.restrict(w)
		return
	}
	for _, option := range asked.later {
		r.find("not-supported-yet", w, fmt.Sprintf("option %q is not supported yet", watch.Printable(option)), "the option is ignored")
	}
	switch {
	case asked.port != "":
		n, err := parsePort(asked.port)
		if err != nil {
			r.invalid(w, err, "ignored")
			return
		}
		r.s.ports = append(r.s.ports, askedPort{number: n, via: w.written})
		if r.s.mode == modeUnsaid && asked.proto == "tcp" {
			r.s.mode = modeTCP
		}
		return
	case asked.proto == "tcp+sni":
		r.s.mode = modePassthrough
	case asked.proto != "" && asked.proto != "http":
		r.find("not-supported-yet", w, fmt.Sprintf("proto=%s is not supported yet", watch.Printable(asked.proto)), "the route is ignored")
		return
	}
	route := askedRoute{host: "*", path: "/", via: w.written}
	var err error
	if asked.host != "" {
		if route.host, err = parseHost(asked.host); err != nil {
			r.invalid(w, err, "ignored")
			return
		}
	}
	if asked.path != "" {
		if route.path, err = parsePath(asked.path); err != nil {
			r.invalid(w, err, "ignored")
			return
		}
		route.prefix = route.path != "/"
	}
	if route.host == "*" && asked.path == "" {
		r.invalid(w, errEmpty, "ignored")
		return
	}
	if asked.strip != "" {
		if route.strip, err = parsePath(asked.strip); err != nil || route.strip == "/" {
			r.invalid(w, fmt.Errorf("has a strip that is no path"), "the route is ignored")
			return
		}
	}
	r.s.routes = append(r.s.routes, route)
}

// instanceWeight is the weight that an instance's own wishes give it, or -1.
func instanceWeight(service string, wishes []wish) (int, []watch.Finding) {
	for _, w := range wishes {
		if w.key != "weight" {
			continue
		}
		n, err := strconv.Atoi(w.value)
		if err == nil && n >= 0 && n <= maxConsulWeight {
			return n, nil
		}
		return -1, []watch.Finding{{
			Code: "invalid-value", Source: w.source, Service: service, Key: watch.Printable(w.written),
			Message: fmt.Sprintf("%q is no whole number from 0 to %d", watch.Printable(w.value), maxConsulWeight),
			Instead: "the weight of the catalog holds",
		}}
	}
	return -1, nil
}

// parseServiceName accepts a name that can also be a host name, in lower case.
func parseServiceName(s string) (string, error) {
	name, err := parseHost(s)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(name, "*") {
		return "", fmt.Errorf("has a wildcard")
	}
	return name, nil
}

// nearest is the word that is at most two letters away, "" if there is none.
func nearest(word string, words []string) string {
	if len(word) > 40 {
		return ""
	}
	best, least := "", 3
	for _, w := range words {
		if d := levenshtein.Distance(word, w, nil); d < least {
			best, least = w, d
		}
	}
	return best
}
