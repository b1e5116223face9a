package cluster

import (
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/mi-lb/mi-lb/provision/inventory"
)

var (
	versionText = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+:~_-]*$`)
	packageName = regexp.MustCompile(`^[a-z0-9A-Z][a-zA-Z0-9.+_-]*$`)
	imageName   = regexp.MustCompile(`^[a-z0-9][a-zA-Z0-9._:/@-]*$`)
	sha256Text  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// artefact reads where a component of a host comes from.
func (r *reader) artefact(h *inventory.Host, c Component) Artefact {
	name := string(c)
	checked := func(suffix string, pattern *regexp.Regexp, what string) string {
		s, at := r.text(h, name+suffix)
		if s != "" && !pattern.MatchString(s) {
			r.refuse(at, "artefact", "%s%s of host %s is %q, which is no %s", name, suffix, h.Name(), s, what)
			return ""
		}
		return s
	}
	var a Artefact
	if v, _, ok := r.value(h, name+"_version"); ok {
		if _, isFloat := v.Value.(float64); isFloat {
			shown, _ := inventory.Text(v.Value)
			r.refuse(v.At, "artefact", "%s_version of host %s was read as the number %s; put quotes around it, or 1.20 becomes 1.2", name, h.Name(), shown)
		} else {
			a.Version = checked("_version", versionText, "version")
		}
	}
	a.Package = checked("_package", packageName, "name of a package")
	a.Image = checked("_image", imageName, "container image")
	sum, sumAt := r.text(h, name+"_sha256")
	a.SHA256 = strings.ToLower(sum)
	if sum != "" && !sha256Text.MatchString(a.SHA256) {
		r.refuse(sumAt, "artefact", "%s_sha256 of host %s is no SHA-256 checksum of 64 hex digits", name, h.Name())
	}
	var at inventory.Position
	a.URL, at = r.text(h, name+"_url")
	if a.URL != "" {
		u, err := url.Parse(a.URL)
		switch {
		case err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || strings.ContainsAny(a.URL, " '\"\\`$"):
			r.refuse(at, "artefact", "%s_url of host %s is no http or https URL", name, h.Name())
		case a.SHA256 == "":
			r.refuse(at, "artefact", "%s_url of host %s has no checksum beside it; set %s_sha256", name, h.Name(), name)
		}
	}
	file, _ := r.text(h, name+"_file")
	if file != "" {
		a.File = filepath.Clean(file)
	}
	source, at := r.text(h, name+"_source")
	switch a.Source = Source(source); a.Source {
	case "repo":
		a.Source = SourcePackage
	case SourceDefault:
		a.Source = a.implied()
	case SourceURL:
		if a.URL == "" {
			r.refuse(at, "artefact", "%s_source of host %s is url, and %s_url is not set", name, h.Name(), name)
		}
	case SourceFile:
		if a.File == "" {
			r.refuse(at, "artefact", "%s_source of host %s is file, and %s_file is not set", name, h.Name(), name)
		}
	case SourcePackage, SourceImage, SourcePreinstalled:
	default:
		r.refuse(at, "artefact", "%s_source of host %s is %q, which is none of package, url, file, image, preinstalled", name, h.Name(), source)
	}
	return a
}

// implied is the source that what else is set speaks for.
func (a Artefact) implied() Source {
	switch {
	case a.URL != "":
		return SourceURL
	case a.File != "":
		return SourceFile
	case a.Image != "":
		return SourceImage
	case a.Package != "":
		return SourcePackage
	}
	return SourceDefault
}
