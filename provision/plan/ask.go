package plan

import (
	"encoding/json"
	"path"

	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
)

// Ask is what must be known of a machine to compare it with a part, with what is in
// its files: to show the difference, or to find that it means the same. What a secret
// file has does not leave the machine for that.
func Ask(p *desired.Part) facts.Ask {
	var a facts.Ask
	for _, x := range p.Packages {
		a.Packages = append(a.Packages, x.Name)
		a.Units = append(a.Units, x.Masked...)
	}
	for _, x := range p.Users {
		a.Users = append(a.Users, x.Name)
	}
	for _, x := range p.Directories {
		a.Looks = append(a.Looks, x.Path)
	}
	for _, x := range p.Programs {
		a.Looks = append(a.Looks, x.Path)
	}
	for _, f := range allFiles(p) {
		switch {
		case f.Once:
			a.Looks = append(a.Looks, f.Path)
		case !f.Secret.IsEmpty() && f.Same == nil:
			a.Files = append(a.Files, f.Path)
		default:
			a.Contents = append(a.Contents, f.Path)
		}
		if f.OnlyWith != "" {
			a.Looks = append(a.Looks, f.OnlyWith)
		}
	}
	for _, u := range p.Units {
		a.Units = append(a.Units, u.Name)
	}
	restarts, reloads := p.Triggers()
	a.Units = append(append(a.Units, restarts...), reloads...)
	var sorted facts.Ask
	sorted.Add(a)
	return sorted
}

// AskLeft is what must be known of a machine to clean up what earlier runs left:
// what the manifests in its stamps name.
func AskLeft(found *facts.Facts) facts.Ask {
	var a facts.Ask
	for name, text := range found.Stamps {
		var m manifest
		if len(name) < 5 || name[:5] != "part." || json.Unmarshal([]byte(text), &m) != nil {
			continue
		}
		for file := range m.Files {
			if path.IsAbs(file) {
				a.Looks = append(a.Looks, file)
			}
		}
	}
	var sorted facts.Ask
	sorted.Add(a)
	return sorted
}
