// Package flags reads the flags of Mesos and Marathon as those do.
//
// In come the names and kinds of flags, arguments, and an environment. Out go
// values, or the error that the real program ends with.
package flags

//lint:file-ignore ST1005 these are the words of Mesos.

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Kind is what a flag takes.
type Kind int

// Kinds.
const (
	Text Kind = iota
	Bool
	Duration // "10secs"
	Number
	Port
	Address
	Percent // "25%"
	JSON
)

// Values are flags that were given, by name.
type Values map[string]string

// Mesos reads flags as Mesos does: arguments first, then the environment for what
// they do not have; "file://" values from files; "no-" for false.
func Mesos(known map[string]Kind, aliases map[string]string, arguments, environment []string) (Values, error) {
	v := Values{}
	add := func(name, value string, hasValue, onlyNew bool) error {
		original := name
		if to, ok := aliases[name]; ok {
			name = to
		}
		kind, ok := known[name]
		if !ok {
			if positive, isNo := strings.CutPrefix(name, "no-"); isNo && known[positive] == Bool {
				if _, is := known[positive]; is {
					name, value, hasValue, kind, ok = positive, "false", true, Bool, true
				}
			}
		}
		if !ok {
			return fmt.Errorf("Failed to load unknown flag '%s'", original)
		}
		if !hasValue {
			if kind != Bool {
				return fmt.Errorf("Failed to load non-boolean flag '%s': Missing value", name)
			}
			value = "true"
		}
		if _, is := v[name]; is {
			if onlyNew {
				return nil
			}
			return fmt.Errorf("Flag '%s' is already loaded via name '%s'", name, original)
		}
		if path, isFile := strings.CutPrefix(value, "file://"); isFile && !fileItself[name] {
			data, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("Failed to load value '%s' of flag '%s': Error reading file '%s': %w", value, name, path, errors.Unwrap(err))
			}
			value = string(data)
		}
		if err := check(kind, strings.TrimSpace(value)); err != nil {
			return fmt.Errorf("Failed to load flag '%s': Failed to load value '%s': %w", name, value, err)
		}
		v[name] = value
		return nil
	}
	for _, argument := range arguments {
		name, isFlag := strings.CutPrefix(argument, "--")
		if !isFlag {
			return nil, fmt.Errorf("Unexpected argument '%s'", argument)
		}
		name, value, hasValue := strings.Cut(name, "=")
		if err := add(name, value, hasValue, false); err != nil {
			return nil, err
		}
	}
	for _, entry := range environment {
		name, value, _ := strings.Cut(entry, "=")
		name, ours := strings.CutPrefix(name, "MESOS_")
		if !ours || name == "NATIVE_JAVA_LIBRARY" || name == "NATIVE_LIBRARY" {
			continue
		}
		if err := add(strings.ToLower(name), value, true, true); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// fileItself are flags that are paths of files rather than their content; a
// "file://" before them is cut off.
var fileItself = map[string]bool{"credentials": true, "credential": true, "http_credentials": true}

var durationText = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)(ns|us|ms|secs|mins|hrs|days|weeks)$`)

var units = map[string]time.Duration{
	"ns": 1, "us": time.Microsecond, "ms": time.Millisecond, "secs": time.Second, "mins": time.Minute,
	"hrs": time.Hour, "days": 24 * time.Hour, "weeks": 7 * 24 * time.Hour,
}

// ParseDuration reads "10secs".
func ParseDuration(s string) (time.Duration, error) {
	m := durationText.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("Invalid duration '%s'", s)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, fmt.Errorf("Invalid duration '%s'", s)
	}
	return time.Duration(n * float64(units[m[2]])), nil
}

func check(kind Kind, value string) error {
	switch kind {
	case Bool:
		if value != "true" && value != "false" && value != "1" && value != "0" {
			return fmt.Errorf("Expecting a boolean (e.g., true or false), got '%s'", value)
		}
	case Duration:
		_, err := ParseDuration(value)
		return err
	case Number:
		if _, err := strconv.ParseFloat(value, 64); err != nil {
			return errors.New("Failed to convert into required type")
		}
	case Port:
		if _, err := strconv.ParseUint(value, 10, 16); err != nil {
			return errors.New("Failed to convert into required type")
		}
	case Address:
		if _, err := netip.ParseAddr(value); err != nil {
			return errors.New("Failed to parse the IP")
		}
	case Percent:
		n, err := strconv.ParseFloat(strings.TrimSuffix(value, "%"), 64)
		if err != nil || !strings.HasSuffix(value, "%") || n < 0 || n > 100 {
			return fmt.Errorf("Invalid value '%s': Must be a percentage in the range 0-100", value)
		}
	case JSON:
		if !json.Valid([]byte(value)) {
			return errors.New("syntax error: it is no JSON")
		}
	}
	return nil
}

// Text is a value without the white space around it; otherwise if it is not given.
func (v Values) Text(name, otherwise string) string {
	if value, ok := v[name]; ok {
		return strings.TrimSpace(value)
	}
	return otherwise
}

// Has says whether a flag is given.
func (v Values) Has(name string) bool { _, ok := v[name]; return ok }

// Bool is a value that was checked.
func (v Values) Bool(name string, otherwise bool) bool {
	switch v.Text(name, "") {
	case "true", "1":
		return true
	case "false", "0":
		return false
	}
	return otherwise
}

// Duration is a value that was checked.
func (v Values) Duration(name string, otherwise time.Duration) time.Duration {
	if d, err := ParseDuration(v.Text(name, "")); err == nil {
		return d
	}
	return otherwise
}

// Number is a value that was checked.
func (v Values) Number(name string, otherwise int) int {
	if n, err := strconv.Atoi(v.Text(name, "")); err == nil {
		return n
	}
	return otherwise
}

// Credential is one login.
type Credential struct {
	Principal string `json:"principal"`
	Secret    string `json:"secret"`
}

// ReadCredentials reads a file with logins, which must be JSON: the old format of a
// login a line is gone since Mesos 1.11.
func ReadCredentials(value string) (map[string]string, error) {
	path := strings.TrimPrefix(value, "file://")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("Failed to read credentials file '%s': %w", path, errors.Unwrap(err))
	}
	var all struct {
		Credentials []Credential `json:"credentials"`
	}
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&all); err != nil {
		return nil, fmt.Errorf("Not a valid JSON credentials file '%s': %w", path, err)
	}
	logins := map[string]string{}
	for _, c := range all.Credentials {
		if c.Principal == "" || c.Secret == "" {
			return nil, fmt.Errorf("Credentials file '%s' has a login without principal or secret", path)
		}
		logins[c.Principal] = c.Secret
	}
	return logins, nil
}

// ReadCredential reads a file with one login.
func ReadCredential(value string) (Credential, error) {
	path := strings.TrimPrefix(value, "file://")
	data, err := os.ReadFile(path)
	if err != nil {
		return Credential{}, fmt.Errorf("Failed to read credential file '%s': %w", path, errors.Unwrap(err))
	}
	var c Credential
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&c); err != nil || c.Principal == "" {
		return Credential{}, fmt.Errorf("Not a valid JSON credential file '%s'", path)
	}
	return c, nil
}
