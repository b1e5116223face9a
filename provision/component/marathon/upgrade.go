package marathon

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/vars"
)

var minorText = regexp.MustCompile(`^(?:\d+:)?v?(\d+)\.(\d+)(?:\D|$)`)

// minor is the first two numbers of a version.
func minor(version string) (major, number int, ok bool) {
	m := minorText.FindStringSubmatch(version)
	if m == nil {
		return 0, 0, false
	}
	major, err1 := strconv.Atoi(m[1])
	number, err2 := strconv.Atoi(m[2])
	return major, number, err1 == nil && err2 == nil
}

// Check looks at a change of the version. Standbys get the new one first and the
// leader hands over to one of them last, so that an old Marathon never leads after a
// new one has migrated what is stored; what that order cannot mend is refused: the
// vendor supports a migration from one minor version to the next only, and none back.
func (marathon) Check(p component.Platform, n *cluster.Node) []component.Problem {
	a := n.Artefacts[cluster.ComponentMarathon]
	found := p.Facts[n.Name]
	if found == nil || a.Version == "" || a.Source != cluster.SourcePackage && a.Source != cluster.SourceDefault {
		return nil
	}
	installed := found.Packages[cmp.Or(a.Package, name)]
	major, now, ok1 := minor(installed)
	wantedMajor, wanted, ok2 := minor(a.Version)
	if !ok1 || !ok2 || major == wantedMajor && now == wanted {
		return nil
	}
	problem := component.Problem{Code: "marathon-upgrade", Node: n.Name, Component: name}
	switch {
	case major != wantedMajor || wanted > now+1:
		problem.Fatal = true
		problem.Message = fmt.Sprintf("Marathon %s cannot take over from %s: what is stored is migrated from one minor version to the next only", a.Version, installed)
		problem.Advice = fmt.Sprintf("go there step by step: set marathon_version to a %d.%d first", major, now+1)
	case wanted < now:
		problem.Fatal = true
		problem.Message = fmt.Sprintf("Marathon %s cannot read what %s has stored", a.Version, installed)
		problem.Advice = "restore the backup that was made before the migration, by Marathon's documentation, and set marathon_allow_version_change=yes then"
	default:
		problem.Message = fmt.Sprintf("Marathon goes from %s to %s: the first new leader migrates what is stored, and there is no way back but the backup in %s/backup", installed, a.Version, vars.For(name, n).Path("marathon_work_dir", "/var/lib/marathon"))
		problem.Advice = "deploy nothing meanwhile"
	}
	if problem.Fatal && vars.For(name, n).Bool("marathon_allow_version_change", false) {
		problem.Fatal = false
	}
	return []component.Problem{problem}
}
