package facts

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// StampsDirectory is where apply notes on a machine what it has done.
const StampsDirectory = "/var/lib/mi-lb/stamps"

// Ask names what to look at. The zero value asks for what is always found out.
type Ask struct {
	// Looks are files and directories to look at, without reading them: mode, owner,
	// size, time. Files are read for their checksum, Contents for what is in them,
	// up to 1 MiB.
	Looks, Files, Contents []string
	Units                  []string
	Packages               []string
	Users                  []string
	// Disks are paths on the file systems that matter; they need not exist.
	Disks []string
	// Stamps is the directory of stamps; empty is [StampsDirectory].
	Stamps string
}

// Add adds what another asks for.
func (a *Ask) Add(b Ask) {
	for _, pair := range []struct {
		to   *[]string
		from []string
	}{{&a.Looks, b.Looks}, {&a.Files, b.Files}, {&a.Contents, b.Contents}, {&a.Units, b.Units}, {&a.Packages, b.Packages}, {&a.Users, b.Users}, {&a.Disks, b.Disks}} {
		*pair.to = append(*pair.to, pair.from...)
		slices.Sort(*pair.to)
		*pair.to = slices.Compact(*pair.to)
	}
	if a.Stamps == "" {
		a.Stamps = b.Stamps
	}
}

// Covers says whether an answer to a answers b, too.
func (a Ask) Covers(b Ask) bool {
	within := func(wanted []string, asked ...[]string) bool {
		for _, w := range wanted {
			if !slices.ContainsFunc(asked, func(list []string) bool { return slices.Contains(list, w) }) {
				return false
			}
		}
		return true
	}
	return within(b.Looks, a.Looks, a.Files, a.Contents) && within(b.Files, a.Files, a.Contents) && within(b.Contents, a.Contents) &&
		within(b.Units, a.Units) && within(b.Packages, a.Packages) && within(b.Users, a.Users) && within(b.Disks, a.Disks)
}

// mostNames is how long the names of files may be together: they are arguments of a
// program there.
const mostNames = 512 << 10

// script is the shell that answers. The mark tells what it says from what is in files.
func (a Ask) script(mark string) (string, error) {
	if a.Stamps == "" {
		a.Stamps = StampsDirectory
	}
	var b strings.Builder
	fmt.Fprintf(&b, "mark=%s\n", mark)
	for _, list := range []struct {
		variable string
		values   []string
		between  string
	}{
		{"looks", a.Looks, "\n"}, {"files", a.Files, "\n"}, {"contents", a.Contents, "\n"}, {"disks", a.Disks, "\n"},
		{"units", a.Units, " "}, {"packages", a.Packages, " "}, {"users", a.Users, " "}, {"stamps", []string{a.Stamps}, " "},
	} {
		for _, v := range list.values {
			if list.between == "\n" && (!path.IsAbs(v) || strings.ContainsAny(v, "\n\x00\\")) {
				return "", fmt.Errorf("look at %q: it is no absolute path", v)
			}
			if list.between == " " && !isWord(v) {
				return "", fmt.Errorf("look at %q: it is no name of one of the %s", v, list.variable)
			}
		}
		fmt.Fprintf(&b, "%s='%s'\n", list.variable, strings.ReplaceAll(strings.Join(list.values, list.between), "'", `'\''`))
	}
	if b.Len() > mostNames {
		return "", fmt.Errorf("look at %d files and more: that is too much for one question", len(a.Looks)+len(a.Files)+len(a.Contents))
	}
	b.WriteString(gatherScript)
	return b.String(), nil
}

// isWord says whether the shell leaves s as it is.
func isWord(s string) bool {
	return s != "" && s[0] != '-' && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@._:/+-~", r))
	})
}
