package haproxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy/process"
	"github.com/mi-lb/mi-lb/lb/haproxy/render"
	"github.com/mi-lb/mi-lb/lb/routing"
)

// prepared are files that HAProxy accepts, on disk and not in force yet.
type prepared struct {
	// want is what they say: what was wanted without the culprits.
	want   Wanted
	files  render.Files
	staged *render.Staged
	// culprits are the services that were left out, and why.
	culprits map[string]error
	took     time.Duration
}

// prepare renders, writes and validates. If HAProxy does not accept the files, the
// services at fault are found and left out; an error means that it would not even
// without any service, or that something else is in the way.
//
// known is a table whose backends HAProxy accepts, nil for none: then only the others
// are validated. trusted says of a service that HAProxy has accepted it as it is: then it
// is not the service that is to blame, but the templates.
func (d *Driver) prepare(
	ctx context.Context, want Wanted, known *routing.Table, generation string, trusted func(service string) bool,
) (prepared, error) {
	begin := time.Now()
	p := prepared{want: want, culprits: map[string]error{}}
	for {
		files, staged, err := d.accepted(ctx, p.want, known, generation)
		if err == nil {
			p.files, p.staged, p.took = files, staged, time.Since(begin)
			return p, nil
		}
		if known != nil {
			known = nil // once more, to find out what is wrong
			continue
		}
		reason := err
		services, err := d.culprits(ctx, p.want, generation, files, reason)
		if err != nil {
			return prepared{}, err
		}
		for service := range services {
			if trusted(service) {
				return prepared{}, fmt.Errorf("service %q has not changed, so the templates are at fault: %w", service, reason)
			}
		}
		if all := len(p.want.Table.Services); len(services) > 1 && 2*len(services) > all {
			return prepared{}, fmt.Errorf("%d of %d services are not accepted, so the templates are at fault: %w", len(services), all, reason)
		}
		gone := map[string]bool{}
		for service, why := range services {
			p.culprits[service], gone[service] = why, true
		}
		p.want = p.want.without(gone, nil)
	}
}

// accepted are files that HAProxy accepts. With an error there may be files still:
// those that it does not.
func (d *Driver) accepted(ctx context.Context, want Wanted, known *routing.Table, generation string) (render.Files, *render.Staged, error) {
	settings := want.settings(d.o.Settings)
	settings.Generation = generation
	files, err := d.renderer.Render(ctx, want.Table, settings, want.Snapshot)
	if err != nil {
		return nil, nil, err
	}
	staged, err := render.Stage(settings.Dir, files)
	if err != nil {
		return nil, nil, err
	}
	if known != nil {
		err = d.checkChanged(ctx, want, known)
	} else {
		err = d.check(ctx, staged)
	}
	if err != nil {
		return files, nil, errors.Join(err, staged.Discard())
	}
	return files, staged, nil
}

// checkPrefix begins the names of directories that are there for one check.
const checkPrefix = ".check-"

// removeChecks removes what a driver left that was killed while it checked.
func removeChecks(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, checkPrefix+"*"))
	for _, path := range left {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}

// checkChanged has HAProxy look at the backends that are not of a table that it
// accepts. Backends know nothing of each other, and maps nothing but names: what is
// accepted in parts is accepted as a whole, at the cost of what changed.
func (d *Driver) checkChanged(ctx context.Context, want Wanted, known *routing.Table) error {
	accepted := make(map[*routing.Backend]bool, len(known.Backends))
	for _, b := range known.Backends {
		accepted[b] = true
	}
	changed := &routing.Table{}
	for _, b := range want.Table.Backends {
		if !accepted[b] {
			changed.Backends = append(changed.Backends, b)
		}
	}
	if len(changed.Backends) == 0 {
		return nil
	}
	dir, err := os.MkdirTemp(d.o.Settings.Dir, checkPrefix)
	if err != nil {
		return fmt.Errorf("check configuration: %w", err)
	}
	defer os.RemoveAll(dir)
	settings := want.settings(d.o.Settings)
	settings.Dir, settings.Plain = dir, true
	// One of each shape that is there: it may be a new one.
	settings.SpareBackends = min(settings.SpareBackends, 1)
	files, err := render.New(d.o.Engine).Render(ctx, changed, settings, want.Snapshot)
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return fmt.Errorf("check configuration: %w", err)
		}
	}
	v, err := process.Validate(ctx, d.o.Path, filepath.Join(dir, render.ConfigFile))
	if err != nil {
		return err
	}
	return v.Err()
}

func (d *Driver) check(ctx context.Context, staged *render.Staged) error {
	file, err := staged.CheckFile()
	if err != nil {
		return err
	}
	v, err := process.Validate(ctx, d.o.Path, file)
	if err != nil {
		return err
	}
	// The file is a copy for this one use; people know it by another name.
	for i := range v.Messages {
		v.Messages[i].Text = strings.ReplaceAll(v.Messages[i].Text, file, render.ConfigFile)
	}
	v.Output = strings.ReplaceAll(v.Output, file, render.ConfigFile)
	return v.Err()
}

// culprits are the services because of which the files were not accepted, for the
// reason given. If it is not for any service, that reason is the error.
func (d *Driver) culprits(ctx context.Context, want Wanted, generation string, files render.Files, reason error) (map[string]error, error) {
	var input *render.InputError
	if errors.As(reason, &input) && input.Service != "" {
		return map[string]error{input.Service: reason}, nil
	}
	var invalid *process.InvalidError
	if !errors.As(reason, &invalid) {
		return nil, reason
	}
	all := want.services()
	accepts := func(services []string) (bool, error) {
		in := map[string]bool{}
		for _, s := range services {
			in[s] = true
		}
		out := map[string]bool{}
		for _, s := range all {
			out[s] = !in[s]
		}
		_, staged, err := d.accepted(ctx, want.without(out, nil), nil, generation)
		switch {
		case err == nil:
			return true, staged.Discard()
		case errors.As(err, &invalid), errors.As(err, &input):
			return false, nil
		}
		return false, err
	}
	said := suspects(want, files, invalid.Alerts)
	guess := slices.Sorted(maps.Keys(said))
	rest := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return said[s] != "" })
	ok := false
	if len(guess) > 0 {
		var err error
		if ok, err = accepts(rest); err != nil {
			return nil, err
		}
	}
	found := guess
	if !ok {
		if len(all) == 0 {
			return nil, reason
		}
		if ok, err := accepts(nil); err != nil {
			return nil, err
		} else if !ok {
			return nil, fmt.Errorf("no service is at fault: %w", reason)
		}
		var err error
		if found, err = blame(all, accepts); err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("accepted when tried again: %w", reason)
		}
	}
	services := map[string]error{}
	for _, s := range found {
		services[s] = invalid
		if text := said[s]; text != "" {
			services[s] = errors.New(text)
		}
	}
	return services, nil
}
