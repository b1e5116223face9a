package haproxy

import (
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/lb/haproxy/encode"
	"github.com/mi-lb/mi-lb/lb/haproxy/process"
	"github.com/mi-lb/mi-lb/lb/haproxy/render"
)

// blame finds the services that a configuration is not accepted with, given that it
// is without any: those that must be left out for all others to be in. It halves the
// candidates, so that k culprits among n cost about k·log n trials.
func blame(candidates []string, accepts func(services []string) (bool, error)) ([]string, error) {
	b := blamer{accepts: accepts}
	return b.among(candidates)
}

type blamer struct {
	accepts func(services []string) (bool, error)
	// good are accepted together.
	good []string
}

func (b *blamer) among(candidates []string) ([]string, error) {
	if len(candidates) == 0 {
		return nil, nil
	}
	all := slices.Concat(b.good, candidates)
	ok, err := b.accepts(all)
	if err != nil {
		return nil, err
	}
	if ok {
		b.good = all
		return nil, nil
	}
	if len(candidates) == 1 {
		return candidates, nil
	}
	half := len(candidates) / 2
	left, err := b.among(candidates[:half])
	if err != nil {
		return nil, err
	}
	right, err := b.among(candidates[half:])
	return slices.Concat(left, right), err
}

// suspects are the services whose backends HAProxy's alerts point at, each with what
// is said about it: most often that is right, and then nothing needs to be tried.
func suspects(w Wanted, files render.Files, alerts []process.Message) map[string]string {
	byBackend := map[string]string{}
	for _, b := range w.Table.Backends {
		byBackend[encode.Name(b.ID)] = b.Service
	}
	lines := strings.Split(string(files[render.ConfigFile]), "\n")
	found := map[string]string{}
	for _, alert := range alerts {
		for i := min(alert.Line, len(lines)) - 1; i >= 0; i-- {
			if rest, ok := strings.CutPrefix(lines[i], "backend "); ok {
				name, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
				if service, ok := byBackend[name]; ok && found[service] == "" {
					found[service] = alert.Text
				}
				break
			}
		}
	}
	return found
}
