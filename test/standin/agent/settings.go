// Package agent is what mesos-agent does here: it registers with the leading master
// and runs tasks as Docker containers, which outlive it.
package agent

//lint:file-ignore ST1005 these are the words of Mesos.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/test/standin/ensemble"
	"github.com/mi-lb/mi-lb/test/standin/flags"
)

// Version is what it says that it is.
const Version = "1.11.0"

type settings struct {
	zk                    ensemble.URL
	ip, hostname          string
	port                  int
	workDir, runtimeDir   string
	attributes, resources string
	policy                string
	credential            flags.Credential
	readonly              map[string]string // logins of HTTP; nil for none needed
	docker, socket        string
	dockerAPI             string
	sessionTimeout        time.Duration
	removeDelay           time.Duration
}

var knownContainerizers = []string{"docker", "mesos"}

// read is what Mesos makes of its flags, and why it would not start with them.
func read(v flags.Values, environment []string) (settings, error) {
	s := settings{
		ip: v.Text("ip", ""), port: v.Number("port", 5051), workDir: v.Text("work_dir", ""), runtimeDir: v.Text("runtime_dir", "/var/run/mesos"),
		attributes: v.Text("attributes", ""), resources: v.Text("resources", ""), policy: v.Text("reconfiguration_policy", "equal"),
		docker: v.Text("docker", "docker"), socket: v.Text("docker_socket", "/var/run/docker.sock"),
		sessionTimeout: v.Duration("zk_session_timeout", 10*time.Second), removeDelay: v.Duration("docker_remove_delay", 6*time.Hour),
	}
	s.hostname = v.Text("hostname", s.ip)
	switch {
	case s.ip == "":
		return s, errors.New("the stand-in needs --ip, as a machine with several addresses does")
	case !v.Has("master"):
		return s, errors.New("Missing required option --master")
	case s.workDir == "":
		return s, errors.New("Missing required option --work_dir")
	case s.policy != "equal" && s.policy != "additive":
		return s, fmt.Errorf("Invalid value '%s' for `--reconfiguration_policy`", s.policy)
	}
	var err error
	if s.zk, err = ensemble.ParseMesos(v["master"]); err != nil {
		return s, fmt.Errorf("Failed to create a master detector: %w", err)
	}
	containerizers := strings.Split(v.Text("containerizers", "mesos"), ",")
	for _, c := range containerizers {
		if !slices.Contains(knownContainerizers, c) {
			return s, fmt.Errorf("Failed to create a containerizer: Unknown or unsupported containerizer: %s", c)
		}
	}
	if v.Has("credential") {
		if s.credential, err = flags.ReadCredential(v["credential"]); err != nil {
			return s, err
		}
	}
	if v.Has("http_credentials") {
		if s.readonly, err = flags.ReadCredentials(v["http_credentials"]); err != nil {
			return s, err
		}
	}
	if !v.Bool("authenticate_http_readonly", false) {
		s.readonly = nil
	} else if s.readonly == nil {
		return s, errors.New("The flag `--authenticate_http_readonly` needs `--http_credentials`")
	}
	if v.Bool("authenticate_http_executors", false) {
		return s, errors.New("Executor authentication needs a build with SSL and `--jwt_secret_key`")
	}
	if v.Bool("authenticate_http_readwrite", false) {
		return s, errors.New("with `--authenticate_http_readwrite` executors, which do not log in, could not reach the agent")
	}
	if _, err := resourcesOf(s.resources); err != nil {
		return s, fmt.Errorf("Failed to determine agent resources: %w", err)
	}
	for item := range strings.SplitSeq(s.attributes, ";") {
		if name, value, ok := strings.Cut(item, ":"); item != "" && (!ok || name == "" || value == "") {
			return s, fmt.Errorf("Failed to parse attributes: Invalid attribute key:value pair '%s'", item)
		}
	}
	if err := cgroups(v); err != nil {
		return s, err
	}
	for _, entry := range environment {
		if value, ok := strings.CutPrefix(entry, "DOCKER_API_VERSION="); ok {
			s.dockerAPI = value
		}
	}
	if slices.Contains(containerizers, "docker") {
		return s, checkDocker(s)
	}
	return s, errors.New("the stand-in runs containers of Docker only: --containerizers needs docker")
}

// cgroups ends an agent where Mesos 1.11 does, which knows the first version only.
func cgroups(v flags.Values) error {
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	if v.Bool("systemd_enable_support", true) && !exists("/sys/fs/cgroup/systemd") {
		return errors.New("Failed to initialize systemd: Failed to locate systemd cgroups hierarchy: does not exist")
	}
	switch launcher := v.Text("launcher", "linux"); launcher {
	case "posix":
	case "linux":
		if !exists("/sys/fs/cgroup/freezer") {
			return errors.New("Failed to create a containerizer: Could not create MesosContainerizer: Failed to create launcher: Failed to create Linux launcher: Failed to mount cgroups hierarchy at '/sys/fs/cgroup/freezer'")
		}
	default:
		return fmt.Errorf("Failed to create a containerizer: Unknown launcher '%s'", launcher)
	}
	for isolator := range strings.SplitSeq(v.Text("isolation", "posix/cpu,posix/mem"), ",") {
		switch {
		case strings.HasPrefix(isolator, "cgroups/") && !exists("/sys/fs/cgroup/memory"):
			return fmt.Errorf("Failed to create a containerizer: Could not create MesosContainerizer: Failed to create isolator '%s': Failed to prepare hierarchy", isolator)
		case !strings.Contains(isolator, "/"):
			return fmt.Errorf("Failed to create a containerizer: Could not create MesosContainerizer: Unknown or unsupported isolator '%s'", isolator)
		}
	}
	return nil
}

// checkDocker asks the engine, with the client that tasks are run with.
func checkDocker(s settings) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, s.docker, "-H", "unix://"+s.socket, "version", "--format", "{{.Server.APIVersion}}").CombinedOutput()
	if err != nil {
		return fmt.Errorf("Failed to create a containerizer: Could not create DockerContainerizer: Failed to create docker: %s: %w", strings.TrimSpace(string(out)), err)
	}
	_, minor, _ := strings.Cut(strings.TrimSpace(string(out)), ".")
	if n, err := strconv.Atoi(minor); err == nil && n > 44 && s.dockerAPI == "" {
		return fmt.Errorf("the engine speaks API 1.%s, whose \"docker inspect\" has no ContainerConfig: every task would fail with \"Unable to find 'ContainerConfig.Entrypoint'\"; DOCKER_API_VERSION=1.44 is missing", minor)
	}
	return nil
}

var rangesText = regexp.MustCompile(`^\[\s*\d+\s*-\s*\d+\s*(,\s*\d+\s*-\s*\d+\s*)*\]$`)

// resourcesOf are resources by name.
func resourcesOf(text string) (map[string]string, error) {
	all := map[string]string{}
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		if !json.Valid([]byte(text)) {
			return nil, errors.New("the JSON is not valid")
		}
		return all, nil
	}
	for item := range strings.SplitSeq(text, ";") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		name, value, ok := strings.Cut(item, ":")
		value = strings.TrimSpace(value)
		isNumber := false
		if _, err := strconv.ParseFloat(value, 64); err == nil {
			isNumber = true
		}
		if !ok || !isNumber && !rangesText.MatchString(value) && !strings.HasPrefix(value, "{") {
			return nil, fmt.Errorf("Bad value for resources, missing or extra ':' in %s", item)
		}
		all[strings.TrimSpace(name)] = value
	}
	return all, nil
}

// saved is what an agent is known by, in its work directory.
type saved struct {
	ID         string `json:"id"`
	Hostname   string `json:"hostname"`
	Port       int    `json:"port"`
	Attributes string `json:"attributes"`
	Resources  string `json:"resources"`
}

func (s settings) latest() string { return filepath.Join(s.workDir, "meta", "slaves", "latest") }

// recover is the agent that was here, if there was one that these settings do not
// make another.
func (s settings) recover() (id string, err error) {
	data, err := os.ReadFile(filepath.Join(s.latest(), "slave.info"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("Failed to perform recovery: %w", err)
	}
	var old saved
	if err := json.Unmarshal(data, &old); err != nil {
		return "", fmt.Errorf("Failed to perform recovery: %w", err)
	}
	const advice = "\nTo remedy this do as follows:\nStep 1: rm -f %s\n        This ensures agent doesn't recover old live executors.\nStep 2: Restart the agent."
	incompatible := func(what, before, now string) error {
		return fmt.Errorf("Failed to perform recovery: Incompatible agent info detected: %s changed from '%s' to '%s'."+advice, what, before, now, s.latest())
	}
	switch {
	case old.Hostname != s.hostname:
		return "", incompatible("hostname", old.Hostname, s.hostname)
	case old.Port != s.port:
		return "", incompatible("port", strconv.Itoa(old.Port), strconv.Itoa(s.port))
	case s.policy == "equal" && (old.Attributes != s.attributes || old.Resources != s.resources):
		return "", incompatible("attributes or resources", old.Attributes+" "+old.Resources, s.attributes+" "+s.resources)
	}
	for item := range strings.SplitSeq(old.Attributes, ";") {
		if name, value, ok := strings.Cut(item, ":"); ok && !holds(s.attributes, name, value) {
			return "", incompatible("attributes", old.Attributes, s.attributes)
		}
	}
	for item := range strings.SplitSeq(old.Resources, ";") {
		if name, value, ok := strings.Cut(item, ":"); ok && !holds(s.resources, name, value) {
			return "", incompatible("resources", old.Resources, s.resources)
		}
	}
	return old.ID, nil
}

// holds says whether a list of values still has one: the same text, a larger
// number, or ranges around all of it.
func holds(list, name, value string) bool {
	for item := range strings.SplitSeq(list, ";") {
		n, v, ok := strings.Cut(item, ":")
		if !ok || strings.TrimSpace(n) != strings.TrimSpace(name) {
			continue
		}
		before, err1 := strconv.ParseFloat(value, 64)
		now, err2 := strconv.ParseFloat(v, 64)
		switch {
		case v == value, err1 == nil && err2 == nil && now >= before:
			return true
		case strings.HasPrefix(value, "[") && strings.HasPrefix(v, "["):
			return covers(v, value)
		}
	}
	return false
}

var oneRange = regexp.MustCompile(`(\d+)\s*-\s*(\d+)`)

func covers(outer, inner string) bool {
	for _, i := range oneRange.FindAllStringSubmatch(inner, -1) {
		low, _ := strconv.Atoi(i[1])
		high, _ := strconv.Atoi(i[2])
		for port := low; port <= high; port++ {
			within := slices.ContainsFunc(oneRange.FindAllStringSubmatch(outer, -1), func(o []string) bool {
				first, _ := strconv.Atoi(o[1])
				last, _ := strconv.Atoi(o[2])
				return first <= port && port <= last
			})
			if !within {
				return false
			}
		}
	}
	return true
}

// save notes who this agent is, for its next start.
func (s settings) save(id string) error {
	dir := filepath.Join(s.workDir, "meta", "slaves", id)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("Failed to checkpoint agent info: %w", err)
	}
	data, err := json.Marshal(saved{id, s.hostname, s.port, s.attributes, s.resources})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "slave.info"), data, 0o600); err != nil {
		return fmt.Errorf("Failed to checkpoint agent info: %w", err)
	}
	link := s.latest()
	if to, err := os.Readlink(link); err == nil && to == dir {
		return nil
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("Failed to checkpoint agent info: %w", err)
	}
	return os.Symlink(dir, link)
}
