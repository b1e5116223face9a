package inventory

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// mostHosts bounds what one pattern may stand for: a mistyped bound is an error,
// not a machine out of memory.
const mostHosts = 100_000

var (
	bracketedPort = regexp.MustCompile(`^\[(.+)\]:([0-9]+)$`)
	trailingPort  = regexp.MustCompile(`^((?:[^:\[\]]|\[[^\]]*\])*):([0-9]+)$`)
	hostLabel     = regexp.MustCompile(`^(?i:[\p{L}\p{N}_]|\[(?:[a-z]:[a-z]|[0-9]+:[0-9]+)(?::[0-9]+)?\])(?i:[\p{L}\p{N}_-]|\[(?:[a-z]:[a-z]|[0-9]+:[0-9]+)(?::[0-9]+)?\])*$`)
	anyRange      = regexp.MustCompile(`\[(?:[0-9a-fA-F]+:[0-9a-fA-F]+)(?::[0-9]+)?\]`)
)

// expandPattern is the hosts that a pattern such as "web[01:10:3]:2222" stands
// for, and the port it names, 0 for none.
func expandPattern(pattern string) (hosts []string, port int, err error) {
	name, digits := pattern, ""
	if m := bracketedPort.FindStringSubmatch(name); m != nil {
		name, digits = m[1], m[2]
	}
	if m := trailingPort.FindStringSubmatch(name); m != nil {
		name, digits = m[1], m[2]
	}
	switch {
	case digits == "":
	case !isHostPattern(name):
		// Ansible takes the whole of it for a name then; keep to that.
		name = pattern
	default:
		port, err = strconv.Atoi(digits)
		if err != nil || port < 1 || port > 65535 {
			return nil, 0, fmt.Errorf("%q: port %s is not between 1 and 65535", pattern, digits)
		}
	}
	if port == 0 && strings.HasSuffix(strings.TrimSpace(pattern), ":") {
		return nil, 0, fmt.Errorf("%q ends in a colon, which announces a port", pattern)
	}
	if hosts, err = expandRanges(name, mostHosts); err != nil {
		return nil, 0, err
	}
	for _, host := range hosts {
		if strings.TrimSpace(host) == "" {
			return nil, 0, fmt.Errorf("%q names no host", pattern)
		}
		if strings.TrimSpace(host) == "---" {
			return nil, 0, errors.New(`"---" begins a YAML file, and this file was read as INI`)
		}
	}
	return hosts, port, nil
}

// isHostPattern says whether s is an address or a host name, maybe with ranges.
func isHostPattern(s string) bool {
	plain := anyRange.ReplaceAllString(s, "1")
	if address, err := netip.ParseAddr(plain); err == nil && address.Zone() == "" {
		return true
	}
	for _, label := range strings.Split(s, ".") {
		if !hostLabel.MatchString(label) || strings.HasSuffix(label, "-") || strings.HasSuffix(label, "_") {
			return false
		}
	}
	return true
}

// expandRanges replaces the ranges of a name, first to last, by what they stand for.
func expandRanges(name string, most int) ([]string, error) {
	opening := strings.IndexByte(name, '[')
	if opening < 0 {
		return []string{name}, nil
	}
	closing := strings.IndexByte(name, ']')
	if closing < opening {
		return nil, fmt.Errorf("%q: a range has no end; write [first:last]", name)
	}
	head, tail := name[:opening], name[closing+1:]
	values, err := expandRange(name[opening+1:closing], most)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	tails, err := expandRanges(tail, most)
	if err != nil {
		return nil, err
	}
	if len(values)*len(tails) > most {
		return nil, fmt.Errorf("%q stands for more than %d hosts", name, most)
	}
	hosts := make([]string, 0, len(values)*len(tails))
	for _, value := range values {
		for _, rest := range tails {
			hosts = append(hosts, head+value+rest)
		}
	}
	return hosts, nil
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

func expandRange(bounds string, most int) ([]string, error) {
	parts := strings.Split(bounds, ":")
	if len(parts) != 2 && len(parts) != 3 {
		return nil, fmt.Errorf("[%s] is no range; write [first:last] or [first:last:step]", bounds)
	}
	first, last, step := parts[0], parts[1], 1
	if len(parts) == 3 {
		n, err := strconv.Atoi(parts[2])
		if err != nil || n < 1 {
			return nil, fmt.Errorf("[%s]: the step %q is no positive number", bounds, parts[2])
		}
		step = n
	}
	if first == "" {
		first = "0"
	}
	if last == "" {
		return nil, fmt.Errorf("[%s]: the range has no last value", bounds)
	}
	if from, to := strings.Index(letters, first), strings.Index(letters, last); len(first) == 1 && len(last) == 1 && from >= 0 && to >= 0 {
		if from > to {
			return nil, fmt.Errorf("[%s]: the first value comes after the last", bounds)
		}
		var values []string
		for i := from; i <= to; i += step {
			values = append(values, letters[i:i+1])
		}
		return values, nil
	}
	from, err := decimal(first)
	if err != nil {
		return nil, fmt.Errorf("[%s]: %w", bounds, err)
	}
	to, err := decimal(last)
	if err != nil {
		return nil, fmt.Errorf("[%s]: %w", bounds, err)
	}
	width := 0
	if first[0] == '0' && len(first) > 1 {
		width = len(first)
		if len(last) != width {
			return nil, fmt.Errorf("[%s]: with leading zeros, both bounds must be of one length", bounds)
		}
	}
	switch {
	case from > to:
		return nil, fmt.Errorf("[%s]: the first value comes after the last, so it stands for no host", bounds)
	case (to-from)/step >= most:
		return nil, fmt.Errorf("[%s] stands for more than %d hosts", bounds, most)
	}
	var values []string
	for i := from; i <= to; i += step {
		values = append(values, fmt.Sprintf("%0*d", width, i))
	}
	return values, nil
}

// decimal is strconv.Atoi without signs.
func decimal(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%q is neither a number nor a letter", s)
	}
	return int(n), nil
}
