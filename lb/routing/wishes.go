package routing

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/mi-lb/mi-lb/watch"
)

// A wish is one thing that a service asks for: a key of the vocabulary and the
// value as it was written, not parsed yet.
type wish struct {
	// key is of the vocabulary: "host", "timeout.server".
	key   string
	value string
	// written is the tag, metadata key or label it came from, for findings.
	written string
	source  string
}

// A profile is everything that one instance, or an app, asks for. Instances of a
// service nearly always ask for the same, so there are few of them.
type profile struct {
	wishes []wish
	// text is all of them, to tell profiles apart and to order them.
	text string
	// count is how many instances ask for exactly this.
	count int
	// app says that it comes from the labels of a Marathon app, which are for the
	// whole service and win over what instances say.
	app bool
}

const keyPrefix = "mi-lb"

// registratorMark is the metadata by which mi-lb registrator knows its own
// registrations; it asks for nothing.
const registratorMark = keyPrefix + "-registrator"

// splitKey takes "mi-lb.host" apart to "host", and "mi-lb.2.host" to "host" with
// index 2. Without an index it is -1. Consul's metadata keys cannot hold dots, so
// "mi-lb-timeout-server" and "mi-lb_timeout_server" mean "timeout.server".
func splitKey(name string) (key string, index int, ok bool) {
	rest, ok := strings.CutPrefix(name, keyPrefix)
	if !ok || len(rest) < 2 {
		return "", -1, false
	}
	switch rest[0] {
	case '.':
	case '-', '_':
		rest = strings.NewReplacer("-", ".", "_", ".").Replace(rest)
	default:
		return "", -1, false
	}
	key, index = rest[1:], -1
	if first, after, found := strings.Cut(key, "."); found {
		if n, err := strconv.Atoi(first); err == nil && n >= 0 && strconv.Itoa(n) == first {
			key, index = after, n
		}
	}
	return key, index, true
}

// instanceWishes reads an instance's tags and metadata.
func instanceWishes(source string, instance *watch.Instance) []wish {
	var wishes []wish
	add := func(written, value string) {
		key, index, ok := splitKey(written)
		if !ok {
			return
		}
		if index > 0 {
			// A Consul service has one port; only an app has a second one.
			key = strconv.Itoa(index) + "." + key
		}
		wishes = append(wishes, wish{key: key, value: value, written: written, source: source})
	}
	for _, tag := range instance.Tags {
		if strings.HasPrefix(tag, fabioPrefix) {
			wishes = append(wishes, wish{key: keyFabio, value: tag[len(fabioPrefix):], written: tag, source: source})
			continue
		}
		name, value, found := strings.Cut(tag, "=")
		if !found {
			value = "true"
		}
		add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	for _, name := range slices.Sorted(maps.Keys(instance.Meta)) {
		if name == registratorMark {
			continue
		}
		add(name, strings.TrimSpace(instance.Meta[name]))
	}
	slices.SortStableFunc(wishes, func(a, b wish) int { return strings.Compare(a.key, b.key) })
	return wishes
}

// ofMainPort are the keys that, without an index, are for an app's first port
// only: two ports of one app cannot have the same host or port. The others are
// for all of its ports.
var ofMainPort = []string{"host", "path", "path.strip", "port", "service"}

// appWishes reads the labels of an app and of its n-th port.
func appWishes(source string, app *watch.App, n int) []wish {
	var general, own []wish
	for _, name := range slices.Sorted(maps.Keys(app.Labels)) {
		value := strings.TrimSpace(app.Labels[name])
		if key, index, ok := splitKey(name); ok {
			w := wish{key: key, value: value, written: name, source: source}
			switch {
			case index == n:
				own = append(own, w)
			case index < 0 && (n == 0 || !slices.Contains(ofMainPort, key)):
				general = append(general, w)
			}
			continue
		}
		if w, index, ok := marathonLB(name, value); ok {
			w.source = source
			switch {
			case index == n:
				own = append(own, w)
			case index < 0:
				general = append(general, w)
			}
		}
	}
	if n < len(app.Ports) {
		labels := app.Ports[n].Labels
		for _, name := range slices.Sorted(maps.Keys(labels)) {
			if key, index, ok := splitKey(name); ok && index < 0 {
				own = append(own, wish{key: key, value: strings.TrimSpace(labels[name]), written: name, source: source})
			}
		}
	}
	// What is said for one port replaces what is said for all.
	general = slices.DeleteFunc(general, func(g wish) bool {
		return slices.ContainsFunc(own, func(o wish) bool { return o.key == g.key })
	})
	return append(general, own...)
}

// profiles gathers what the instances ask for, the most common first.
func profiles(wishes [][]wish) []profile {
	byText := map[string]int{}
	var all []profile
	for _, ws := range wishes {
		if len(ws) == 0 {
			continue
		}
		var text strings.Builder
		for _, w := range ws {
			text.WriteString(strconv.Quote(w.written))
			text.WriteString(strconv.Quote(w.value))
		}
		i, ok := byText[text.String()]
		if !ok {
			i = len(all)
			byText[text.String()] = i
			all = append(all, profile{wishes: ws, text: text.String()})
		}
		all[i].count++
	}
	slices.SortFunc(all, func(a, b profile) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.text, b.text))
	})
	return all
}
