package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/cmd/mi-lb/config"
	"github.com/mi-lb/mi-lb/lb/haproxy/render"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/templates"
	"github.com/mi-lb/mi-lb/watch"
)

func renderCommand() *cobra.Command {
	var flags configFlags
	var to string
	var timeout time.Duration
	var detailed bool
	command := &cobra.Command{
		Use:   "render",
		Short: "Write HAProxy's files to a directory, once",
		Long: `Write HAProxy's files for what Consul and Marathon say now to a directory, once.
Nothing that runs is touched. A source that cannot be reached within --timeout is an
error: files without its services would look right and be wrong.`,
		Example: `  mi-lb render --config /etc/mi-lb/mi-lb.yaml --to /tmp/haproxy && haproxy -c -f /tmp/haproxy/haproxy.cfg`,
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			c, p, err := flags.load()
			if err != nil {
				return err
			}
			if to == "" {
				return usageError{errors.New("say with --to DIRECTORY where the files are to go")}
			}
			changed, err := renderOnce(command.Context(), c, p, to, timeout)
			if err != nil {
				return err
			}
			if changed && detailed {
				return errChanges
			}
			return nil
		},
	}
	flags.add(command)
	command.Flags().StringVar(&to, "to", "", "directory to write to")
	command.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for the sources")
	command.Flags().BoolVar(&detailed, "detailed-exitcode", false, "exit 2 if the files differ from those that were there")
	return command
}

// renderOnce writes the files and says whether any differs from what was there.
func renderOnce(ctx context.Context, c config.Config, p paths, to string, timeout time.Duration) (changed bool, err error) {
	level := new(slog.LevelVar)
	log := newLogger(c, level)
	level.Set(max(level.Level(), slog.LevelWarn))
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	snapshot, err := snapshotNow(ctx, c, log)
	if err != nil {
		return false, err
	}
	engine, err := newEngine(c, log)
	if err != nil {
		return false, err
	}
	s, err := settings(c, p)
	if err != nil {
		return false, err
	}
	if s.Dir, err = filepath.Abs(to); err != nil {
		return false, fmt.Errorf("--to: %w", err)
	}
	table := routing.Compile(snapshot, policy(c), nil)
	for _, f := range table.Findings {
		log.Warn(f.String())
	}
	files, err := renderWhenThere(ctx, engine, table, s, snapshot)
	if err != nil {
		return false, err
	}
	return writePlain(s.Dir, files)
}

// renderWhenThere waits for what templates ask Consul's KV and others for.
func renderWhenThere(ctx context.Context, engine *templates.Engine, table *routing.Table, s render.Settings, snapshot *watch.Snapshot) (render.Files, error) {
	ctx, cancel := context.WithCancel(ctx)
	fetching := make(chan struct{})
	go func() {
		defer close(fetching)
		engine.Run(ctx)
	}()
	defer func() { cancel(); <-fetching }()
	renderer := render.New(engine)
	// The maps are named by the path that they are written to.
	s.Plain = true
	var files render.Files
	err := engine.Await(ctx, func() (err error) {
		files, err = renderer.Render(ctx, table, s, snapshot)
		return err
	})
	return files, err
}

// writePlain writes the files side by side, each whole, and says whether any changed.
func writePlain(dir string, files render.Files) (changed bool, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("make --to directory: %w", err)
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if before, err := os.ReadFile(path); err == nil && string(before) == string(content) {
			continue
		}
		changed = true
		if err := writeFile(path, content); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// snapshotNow is what all sources say now. One that fails, or does not answer in
// time, is an error.
func snapshotNow(ctx context.Context, c config.Config, log *slog.Logger) (*watch.Snapshot, error) {
	datacenter, err := localDatacenter(ctx, c, nil, log)
	if err != nil {
		return nil, fmt.Errorf("learn the local datacenter from Consul: %w", err)
	}
	world := watch.NewWorld(nil, datacenter, time.Now)
	all, err := watchers(c, datacenter, nil, log)
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	w := &watching{cancel: cancel}
	for _, watcher := range all {
		w.all.Go(func() { watcher.Run(running, world) })
	}
	defer w.end()
	for {
		snapshot, changed := world.Snapshot()
		if len(world.States()) >= len(all) && world.Settled() {
			for _, s := range world.States() {
				if s.Status != watch.Current {
					return nil, fmt.Errorf("%s cannot be asked: %s", s.Source, s.LastError)
				}
			}
			return snapshot, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the sources: %w; %s", ctx.Err(), unsettled(world))
		}
	}
}

func unsettled(world *watch.World) string {
	text := ""
	for _, s := range world.States() {
		if s.Status != watch.Current {
			text += fmt.Sprintf("%s is %s %s ", s.Source, s.Status, s.LastError)
		}
	}
	return text
}
