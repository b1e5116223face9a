package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/fleet"
	"github.com/mi-lb/mi-lb/provision/inventory"
	"github.com/mi-lb/mi-lb/provision/platform"
	"github.com/mi-lb/mi-lb/provision/preflight"
	"github.com/mi-lb/mi-lb/provision/redact"
	"github.com/mi-lb/mi-lb/provision/secrets"
	"github.com/mi-lb/mi-lb/provision/ssh"
	"github.com/mi-lb/mi-lb/provision/survey"
)

// bootstrap is what all commands below bootstrap share.
type bootstrap struct {
	from           inventoryFlags
	limit          []string
	components     []string
	local          bool
	stateDir       string
	secretsFile    string
	ageIdentity    string
	passphraseFile string
	hostKeys       string
	sshConfig      string
	program        string
	forks          int
	verbose        bool

	yes      bool
	patience time.Duration
	noReach  bool
}

// add adds the flags that every command has.
func (b *bootstrap) add(command *cobra.Command) {
	b.from.add(command)
	flags := command.Flags()
	flags.BoolVar(&b.local, "local", false, "this machine alone, as everything, without an inventory")
	flags.StringSliceVarP(&b.limit, "limit", "l", nil, "only these hosts, groups, datacenters or components, separated by commas")
	flags.StringSliceVar(&b.components, "component", nil, "only these components, separated by commas")
	flags.StringVar(&b.stateDir, "state-dir", "", "directory of secrets, host keys, journal and logs (default .mi-lb/NAME beside the inventory)")
	flags.StringVar(&b.secretsFile, "secrets", "", "file of the secrets (default \"secrets\" in the state directory)")
	flags.StringVar(&b.ageIdentity, "age-identity", "", "age identity that encrypts the secrets")
	flags.StringVar(&b.passphraseFile, "passphrase-file", "", "file with the passphrase that encrypts the secrets")
	flags.StringVar(&b.hostKeys, "host-key-checking", string(ssh.Strict), "host keys that are not known: strict refuses, accept-new stores, off ignores them")
	flags.StringVar(&b.sshConfig, "ssh-config", "", "ssh_config to read (default ~/.ssh/config; \"none\" for none)")
	flags.StringVar(&b.program, "program", "", "the mi-lb that is installed on machines (default this one)")
	flags.IntVar(&b.forks, "forks", survey.DefaultForks, "machines that are worked on at once")
	flags.BoolVarP(&b.verbose, "verbose", "v", false, "print every step, and what new files have in them")
	_ = command.RegisterFlagCompletionFunc("host-key-checking", cobra.FixedCompletions([]string{"strict", "accept-new", "off"}, cobra.ShellCompDirectiveNoFileComp))
}

// addRun adds the flags of commands that change machines.
func (b *bootstrap) addRun(command *cobra.Command) {
	flags := command.Flags()
	flags.BoolVarP(&b.yes, "yes", "y", false, "do not ask")
	flags.DurationVar(&b.patience, "patience", 5*time.Minute, "how long to wait for a component to become healthy")
	flags.BoolVar(&b.noReach, "no-port-check", false, "do not try whether machines reach each other's ports first")
}

// session is one run of a command.
type session struct {
	*bootstrap
	stdin          io.Reader
	stdout, stderr io.Writer
	mask           *redact.Mask
	log            *slog.Logger
	logFile        string
	closers        []func()

	inventory *inventory.Inventory
	cluster   *cluster.Cluster
	state     cluster.State // to be stored
	lock      secrets.Lock
	bundle    *secrets.Bundle
	added     []secrets.Change // to be stored
	dialer    *ssh.Dialer
	fleet     *fleet.Fleet
	survey    *survey.Survey
	scope     survey.Scope
	// changed says that machines were changed since they were looked at.
	changed bool
}

// open reads the inventory and what is stored beside it.
func (b *bootstrap) open(command *cobra.Command) (_ *session, err error) {
	s := &session{bootstrap: b, stdin: command.InOrStdin(), stdout: command.OutOrStdout(), stderr: command.ErrOrStderr(), mask: &redact.Mask{}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if b.local && len(b.from.sources) > 0 {
		return nil, usageError{errors.New("--local is without an inventory; leave out one of --local and -i")}
	}
	if b.forks < 1 {
		return nil, usageError{errors.New("--forks must be 1 or more")}
	}
	if err := b.places(); err != nil {
		return nil, err
	}
	if b.local {
		if err := b.writeLocalInventory(); err != nil {
			return nil, err
		}
	}
	if s.inventory, err = b.from.load(command.Context()); err != nil {
		return nil, err
	}
	if err := s.openLog(command); err != nil {
		return nil, err
	}
	if err := s.build(); err != nil {
		return nil, err
	}
	if err := s.openSecrets(); err != nil {
		return nil, err
	}
	return s, s.connectOptions()
}

func (s *session) close() {
	for _, f := range slices.Backward(s.closers) {
		f()
	}
}

var notFileName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// places says where state is kept.
func (b *bootstrap) places() error {
	if b.stateDir == "" {
		switch {
		case b.local:
			b.stateDir = "/var/lib/mi-lb/bootstrap"
		case len(b.from.sources) == 0:
			return usageError{errors.New("no inventory was named; name one with -i FILE, or use --local for this machine alone")}
		default:
			source := b.from.sources[0]
			directory, name := filepath.Dir(source), filepath.Base(filepath.Clean(source))
			if strings.Contains(source, ",") {
				directory, name = ".", "hosts"
			}
			if info, err := os.Stat(source); err == nil && info.IsDir() {
				directory = source
				name = "all"
			}
			b.stateDir = filepath.Join(directory, ".mi-lb", notFileName.ReplaceAllString(name, "-"))
		}
	}
	if b.secretsFile == "" {
		b.secretsFile = filepath.Join(b.stateDir, "secrets")
	}
	if b.program == "" {
		program, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program, which is installed on machines: %w; name it with --program", err)
		}
		b.program = program
	}
	return nil
}

// localInventory is this machine as everything.
const localInventory = `# Written by mi-lb bootstrap --local. Copy it to begin an inventory of your own.
[dc=%s]
%s ansible_connection=local

[role=control]
%[2]s

[role=worker]
%[2]s

[role=edge]
%[2]s
`

func (b *bootstrap) writeLocalInventory() error {
	file := filepath.Join(b.stateDir, "inventory")
	b.from.sources = []string{file}
	if _, err := os.Stat(file); err == nil {
		return nil // somebody may have added variables
	}
	if err := os.MkdirAll(b.stateDir, 0o700); err != nil {
		return fmt.Errorf("write the inventory of this machine: %w", err)
	}
	name, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find this machine's name: %w", err)
	}
	name, _, _ = strings.Cut(name, ".")
	return renameio.WriteFile(file, fmt.Appendf(nil, localInventory, "dc1", name), 0o600)
}

// keptLogs is how many log files are kept.
const keptLogs = 30

// openLog begins the log of this run, which has everything but secrets.
func (s *session) openLog(command *cobra.Command) error {
	directory := filepath.Join(s.stateDir, "logs")
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return fmt.Errorf("make the directory of logs: %w", err)
	}
	old, err := filepath.Glob(filepath.Join(directory, "*.log"))
	if err == nil && len(old) >= keptLogs {
		slices.Sort(old)
		for _, file := range old[:len(old)-keptLogs+1] {
			_ = os.Remove(file) // it only takes room
		}
	}
	s.logFile = filepath.Join(directory, fmt.Sprintf("%s-%s-%d.log", time.Now().UTC().Format("20060102T150405Z"), command.Name(), os.Getpid()))
	file, err := os.OpenFile(s.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	s.closers = append(s.closers, func() { _ = file.Close() })
	s.log = slog.New(slog.NewTextHandler(&masked{to: file, mask: s.mask}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.log.Info("mi-lb begins", "version", buildVersion(), "command", command.CommandPath(), "pid", os.Getpid())
	return nil
}

// masked writes without secrets. Each write is a whole line.
type masked struct {
	mu   sync.Mutex
	to   io.Writer
	mask *redact.Mask
}

// Write implements io.Writer.
func (m *masked) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := io.WriteString(m.to, m.mask.Mask(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *session) stateFile() string { return filepath.Join(s.stateDir, "state.json") }

func (s *session) journalFile() string { return filepath.Join(s.stateDir, "journal") }

// build says what platform the inventory describes.
func (s *session) build() error {
	var state cluster.State
	data, err := os.ReadFile(s.stateFile())
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("read what is known of the platform: %w", err)
	default:
		if err := json.Unmarshal(data, &state); err != nil {
			return fmt.Errorf("read what is known of the platform from %s: %w", s.stateFile(), err)
		}
	}
	result := cluster.Build(s.inventory, state, platform.Variables()...)
	for _, f := range result.Findings {
		s.log.Info("inventory", "finding", f.String())
		if strings.HasPrefix(f.Code, "misspelt-") {
			fmt.Fprintln(s.stderr, f) // what it says has no effect
		}
	}
	if refused := result.Refused(); len(refused) > 0 {
		for _, f := range refused {
			fmt.Fprintln(s.stderr, f)
		}
		return fmt.Errorf("the inventory has %d errors", len(refused))
	}
	s.cluster, s.state = result.Cluster, result.State
	return s.scoped()
}

// scoped reads --limit and --component.
func (s *session) scoped() error {
	known := componentNames()
	for _, name := range s.components {
		if !slices.Contains(known, name) {
			return usageError{fmt.Errorf("there is no component %q; there are %s", name, strings.Join(known, ", "))}
		}
		s.scope.Components = append(s.scope.Components, name)
	}
	for _, name := range s.limit {
		var hosts []string
		group, isGroup := s.inventory.Group(name)
		d, isDatacenter := s.cluster.Datacenter(name)
		_, isHost := s.inventory.Host(name)
		switch {
		case isHost:
			hosts = []string{name}
		case isDatacenter:
			for _, n := range d.Nodes {
				hosts = append(hosts, n.Name)
			}
		case isGroup:
			for _, h := range group.Hosts() {
				hosts = append(hosts, h.Name())
			}
		case slices.Contains(known, name):
			s.scope.Components = append(s.scope.Components, name)
			continue
		default:
			return usageError{fmt.Errorf("--limit %s: there is no host, group, datacenter or component of that name", name)}
		}
		for _, host := range hosts {
			if _, ok := s.cluster.Node(host); !ok {
				return usageError{fmt.Errorf("--limit %s: host %s is no part of the platform", name, host)}
			}
			s.scope.Nodes = append(s.scope.Nodes, host)
		}
	}
	return nil
}

func componentNames() []string {
	var names []string
	for _, c := range platform.Components() {
		names = append(names, c.Name())
	}
	return names
}

// openSecrets reads the bundle. There need not be one yet.
func (s *session) openSecrets() (err error) {
	switch {
	case s.ageIdentity != "" && s.passphraseFile != "":
		return usageError{errors.New("give one of --age-identity and --passphrase-file")}
	case s.ageIdentity != "":
		if s.lock, err = secrets.IdentityFile(s.ageIdentity); err != nil {
			return err
		}
	case s.passphraseFile != "":
		data, err := os.ReadFile(s.passphraseFile)
		if err != nil {
			return fmt.Errorf("read the passphrase: %w", err)
		}
		text := strings.TrimRight(string(data), "\r\n")
		if text == "" {
			return fmt.Errorf("read the passphrase: %s is empty", s.passphraseFile)
		}
		s.lock = secrets.Passphrase(redact.New(text))
	}
	s.bundle, err = secrets.Load(s.secretsFile, s.lock)
	if errors.Is(err, secrets.ErrLocked) && s.ageIdentity == "" && s.passphraseFile == "" && s.isTerminal() {
		passphrase, asking := s.askSecret(fmt.Sprintf("Passphrase of the secrets in %s: ", s.secretsFile))
		if asking != nil {
			return asking
		}
		s.lock = secrets.Passphrase(passphrase)
		s.bundle, err = secrets.Load(s.secretsFile, s.lock)
	}
	if errors.Is(err, fs.ErrNotExist) {
		s.bundle, err = secrets.New(), nil
	}
	if errors.Is(err, secrets.ErrLocked) {
		return fmt.Errorf("%w: --passphrase-file or --age-identity", err)
	}
	if err == nil {
		s.hide()
	}
	return err
}

// hide makes the bundle's secrets known to the mask. Certificates and the ids of
// tokens are no secrets, and hiding them would only make diffs unreadable.
func (s *session) hide() {
	for _, name := range s.bundle.Names() {
		if strings.HasSuffix(name, "/certificate") || strings.HasSuffix(name, "/accessor") || name == "pki/issuer" {
			continue
		}
		s.mask.Add(redact.New(keyBody(s.bundle.Get(name).Reveal())))
	}
}

// keyBody is a secret without the lines that say that it is a key.
func keyBody(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		if !strings.HasPrefix(line, "-----") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// ensure adds the secrets that a cluster needs, without storing them.
func (s *session) ensure(c *cluster.Cluster) (*secrets.Bundle, error) {
	added, err := s.bundle.Ensure(c, time.Now())
	if err != nil {
		return nil, err
	}
	s.added = append(s.added, added...)
	s.hide()
	return s.bundle, nil
}

// store stores the secrets that were added, and the state: before anything is
// built from them.
func (s *session) store() error {
	if len(s.added) > 0 {
		if err := s.bundle.Save(s.secretsFile, s.lock); err != nil {
			return err
		}
		s.log.Info("secrets stored", "file", s.secretsFile, "added", len(s.added))
		s.added = nil
	}
	data, err := json.MarshalIndent(s.state, "", "  ")
	if err != nil {
		return fmt.Errorf("store what is known of the platform: %w", err)
	}
	data = append(data, '\n')
	if old, err := os.ReadFile(s.stateFile()); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := os.MkdirAll(s.stateDir, 0o700); err != nil {
		return fmt.Errorf("store what is known of the platform: %w", err)
	}
	if err := renameio.WriteFile(s.stateFile(), data, 0o600); err != nil {
		return fmt.Errorf("store what is known of the platform: %w", err)
	}
	return nil
}

// connectOptions makes the dialer and the fleet.
func (s *session) connectOptions() error {
	policy, err := ssh.ParsePolicy(s.hostKeys)
	if err != nil {
		return usageError{fmt.Errorf("--host-key-checking: %w", err)}
	}
	options := ssh.Options{
		KnownHosts: filepath.Join(s.stateDir, "known_hosts"), HostKeys: policy, ConfigFile: s.sshConfig, Log: s.log, Mask: s.mask,
	}
	if s.isTerminal() {
		options.Passphrase = func(file string) (redact.Text, error) { return s.askSecret("Passphrase of " + file + ": ") }
	}
	s.dialer = ssh.NewDialer(options)
	s.closers = append(s.closers, func() { _ = s.dialer.Close() })
	s.fleet = fleet.New(s.dialer, s.cluster.Nodes())
	return nil
}

// look connects to all machines and finds out what is known of the platform.
func (s *session) look(ctx context.Context) error {
	begun := time.Now()
	failed := s.fleet.Connect(ctx, s.forks)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for node, err := range failed {
		s.log.Warn("machine not reached", "node", node, "error", err)
	}
	var err error
	s.survey, err = survey.Look(ctx, survey.Options{
		Components: platform.Components(), Cluster: s.cluster, Fleet: s.fleet, Secrets: s.ensure, Program: s.program, Forks: s.forks,
	})
	if err != nil {
		return err
	}
	s.cluster = s.survey.Platform().Cluster
	s.log.Info("machines looked at", "machines", len(s.cluster.Nodes()), "unreachable", len(s.survey.Unreachable()), "duration", time.Since(begun))
	return nil
}

// checks are the problems that facts show.
func (s *session) checks() []preflightProblem {
	parts := map[string][]*desiredPart{}
	for _, n := range s.cluster.Nodes() {
		parts[n.Name] = s.survey.Parts(n.Name)
	}
	var kept []preflightProblem
	for _, p := range preflight.Check(s.survey.Platform(), parts) {
		if p.Node == "" || s.scope.Nodes == nil || slices.Contains(s.scope.Nodes, p.Node) {
			kept = append(kept, p)
		}
	}
	return kept
}
