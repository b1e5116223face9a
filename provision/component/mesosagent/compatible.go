package mesosagent

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/internal/mesos"
	"github.com/mi-lb/mi-lb/provision/component/vars"
)

// needsReset says why the agent that is there would refuse to start with the new
// settings; false if it would not, or if there is none.
func needsReset(p component.Platform, n *cluster.Node, s *settings) (why string, needed bool) {
	before, there := mesos.File(p, n.Name, environmentFile)
	if !there {
		return "", false
	}
	for _, name := range []string{"MESOS_HOSTNAME", "MESOS_PORT"} {
		if old, now := before[name], s.environment.Get(name); old != "" && old != now {
			return fmt.Sprintf("%s changes from %s to %s, which an agent can never do", name, old, now), true
		}
	}
	for _, name := range []string{"MESOS_ATTRIBUTES", "MESOS_RESOURCES"} {
		if why := additive(parse(before[name]), parse(s.environment.Get(name))); why != "" {
			return name + ": " + why, true
		}
	}
	return "", false
}

// parse splits attributes or resources: "rack:2;ports(*):[1-5, 7-9]". Attributes
// may come twice under one name; they are kept in order.
func parse(text string) map[string][]string {
	values := map[string][]string{}
	for item := range strings.SplitSeq(text, ";") {
		if name, value, found := strings.Cut(strings.TrimSpace(item), ":"); found {
			name = strings.TrimSpace(name)
			values[name] = append(values[name], strings.TrimSpace(value))
		}
	}
	return values
}

// additive says what of a change is not just more than before, as Mesos's
// reconfiguration policy "additive" sees it: numbers may grow, ranges and sets may
// have more, texts must stay, nothing may go.
func additive(before, now map[string][]string) string {
	for _, name := range slices.Sorted(maps.Keys(before)) {
		old, new := before[name], now[name]
		if len(new) < len(old) {
			return name + " is removed"
		}
		for i, value := range old {
			if why := grows(value, new[i]); why != "" {
				return fmt.Sprintf("%s changes from %s to %s: %s", name, value, new[i], why)
			}
		}
	}
	return ""
}

var number = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)

func grows(old, new string) string {
	switch {
	case old == new:
		return ""
	case number.MatchString(old) && number.MatchString(new):
		before, _ := strconv.ParseFloat(old, 64)
		now, _ := strconv.ParseFloat(new, 64)
		if now < before {
			return "it becomes less"
		}
		return ""
	case strings.HasPrefix(old, "[") && strings.HasPrefix(new, "["):
		before, ok1 := ranges(old)
		now, ok2 := ranges(new)
		if !ok1 || !ok2 {
			return "it is no list of ranges"
		}
		for _, r := range before {
			if !covered(r, now) {
				return fmt.Sprintf("%d-%d is missing", r[0], r[1])
			}
		}
		return ""
	case strings.HasPrefix(old, "{") && strings.HasPrefix(new, "{"):
		now := set(new)
		for _, item := range set(old) {
			if !slices.Contains(now, item) {
				return item + " is missing"
			}
		}
		return ""
	}
	return "a text must stay as it is"
}

// ranges are what "[1-5, 7-9]" has, sorted and joined where they touch.
func ranges(text string) ([][2]int, bool) {
	var all [][2]int
	for item := range strings.SplitSeq(strings.Trim(text, "[]"), ",") {
		low, high, found := strings.Cut(strings.TrimSpace(item), "-")
		first, err1 := strconv.Atoi(strings.TrimSpace(low))
		last, err2 := strconv.Atoi(strings.TrimSpace(high))
		if !found || err1 != nil || err2 != nil || first > last {
			return nil, false
		}
		all = append(all, [2]int{first, last})
	}
	slices.SortFunc(all, func(a, b [2]int) int { return a[0] - b[0] })
	var joined [][2]int
	for _, r := range all {
		if k := len(joined) - 1; k >= 0 && r[0] <= joined[k][1]+1 {
			joined[k][1] = max(joined[k][1], r[1])
			continue
		}
		joined = append(joined, r)
	}
	return joined, true
}

func covered(r [2]int, by [][2]int) bool {
	return slices.ContainsFunc(by, func(b [2]int) bool { return b[0] <= r[0] && r[1] <= b[1] })
}

func set(text string) []string {
	var all []string
	for item := range strings.SplitSeq(strings.Trim(text, "{}"), ",") {
		all = append(all, strings.TrimSpace(item))
	}
	return all
}

func fatal(n *cluster.Node, code, advice, format string, arguments ...any) component.Problem {
	return component.Problem{Fatal: true, Code: code, Node: n.Name, Component: name, Message: fmt.Sprintf(format, arguments...), Advice: advice}
}

// Check refuses changes that an agent does not survive, and engines that Mesos
// cannot speak to.
func (agent) Check(p component.Platform, n *cluster.Node) []component.Problem {
	found := p.Facts[n.Name]
	if found == nil {
		return nil
	}
	var problems []component.Problem
	if d := found.Docker; d != nil && newerThan144(d.MinAPI) {
		problems = append(problems, fatal(n, "docker-api", "set docker_version to 29 or older",
			"Docker %s speaks no API older than %s, and Mesos none newer than 1.44", d.Version, d.MinAPI))
	}
	s, _ := read(p, n, vars.For(name, n))
	if s == nil {
		return problems // Desired says why
	}
	if why, reset := needsReset(p, n, s); reset {
		problem := fatal(n, "agent-reset", "to have the agent drained and registered as a new one, run with -e mesos_allow_agent_reset=yes; else set it back",
			"the agent would refuse to start: %s", why)
		if s.allowReset {
			problem.Fatal = false
			problem.Advice = "nothing: mesos_allow_agent_reset is set. The agent is drained, its tasks run elsewhere, and it registers as a new one"
		}
		problems = append(problems, problem)
	}
	return problems
}

// newerThan144 says whether an API version is past 1.44; an unknown one is not.
func newerThan144(version string) bool {
	major, minor, _ := strings.Cut(version, ".")
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	return err1 == nil && err2 == nil && (a > 1 || b > 44)
}
