package flags_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/test/standin/flags"
)

func TestMesosReadsArgumentsVariablesAndFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "zk")
	if err := os.WriteFile(file, []byte("zk://a:b@h:2181/mesos\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := flags.Mesos(flags.Master(), flags.MasterAliases(), []string{"--quorum=2", "--no-root_submissions"}, []string{
		"MESOS_QUORUM=3", "MESOS_ZK=file://" + file, "MESOS_AUTHENTICATE_SLAVES=true", "MESOS_NATIVE_JAVA_LIBRARY=/x", "PATH=/bin",
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"quorum": "2", "zk": "zk://a:b@h:2181/mesos", "root_submissions": "false", "authenticate_agents": "true"} {
		if got := v.Text(name, ""); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestMesosRefuses(t *testing.T) {
	for given, want := range map[string]string{
		"MESOS_QUORUMS=2":                         "unknown flag 'quorums'",
		"MESOS_ATTRIBUTES=a:b":                    "unknown flag 'attributes'",
		"MESOS_QUORUM=two":                        "Failed to load value 'two'",
		"MESOS_AUTHENTICATE_AGENTS=yes":           "Expecting a boolean",
		"MESOS_AGENT_PING_TIMEOUT=15s":            "Invalid duration",
		"MESOS_RECOVERY_AGENT_REMOVAL_LIMIT=101%": "Must be a percentage",
		"MESOS_IP=localhost":                      "Failed to parse the IP",
		"MESOS_PORT=99999":                        "Failed to convert",
		"MESOS_ACLS={":                            "no JSON",
		"MESOS_ZK=file:///nonexistent/zk":         "Error reading file",
		"--quorum":                                "Missing value",
		"quorum=2":                                "Unexpected argument",
	} {
		var arguments, environment []string
		if strings.HasPrefix(given, "MESOS_") {
			environment = []string{given}
		} else {
			arguments = []string{given}
		}
		if _, err := flags.Mesos(flags.Master(), flags.MasterAliases(), arguments, environment); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", given, err, want)
		}
	}
}

func TestCredentialsAreJSON(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	for content, ok := range map[string]bool{
		`{"credentials":[{"principal":"a","secret":"b"}]}`: true,
		"a b\n":                               false,
		`{"credentials":[{"principal":"a"}]}`: false,
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		logins, err := flags.ReadCredentials("file://" + file)
		if ok != (err == nil) || ok && logins["a"] != "b" {
			t.Errorf("%q: %v, %v", content, logins, err)
		}
	}
}

func TestMarathonReadsItsEnvironment(t *testing.T) {
	base := "MARATHON_MASTER=zk://h:1/mesos"
	for _, c := range []struct {
		name      string
		arguments []string
		variables []string
		want      string // of the error; empty for none
	}{
		{"booleans are empty", nil, []string{base, "MARATHON_HA=", "MARATHON_DISABLE_ZK_COMPRESSION=", "MARATHON_METRICS_PROMETHEUS="}, ""},
		{"variables of tasks do not count", nil, []string{base, "MARATHON_APP_ID=/x"}, ""},
		{"a boolean with a value", nil, []string{base, "MARATHON_HA=true"}, "Excess arguments provided: 'true'"},
		{"no value", nil, []string{base, "MARATHON_HTTP_PORT="}, "has no value"},
		{"unknown", nil, []string{base, "MARATHON_EVENT_SUBSCRIBER=http_callback"}, "Unknown option 'event_subscriber'"},
		{"both ways", []string{"--http_port", "80"}, []string{base, "MARATHON_HTTP_PORT=81"}, "both as an argument and as a variable"},
		{"no number", nil, []string{base, "MARATHON_HTTP_PORT=x"}, "bad Int value"},
		{"no master", nil, nil, "Required option 'master'"},
		{"no principal", nil, []string{base, "MARATHON_MESOS_AUTHENTICATION="}, "mesos_authentication_principal is not"},
		{"credentials without a colon", nil, []string{base, "MESOSPHERE_HTTP_CREDENTIALS=x"}, "user:password"},
		{"ports", nil, []string{base, "MARATHON_LOCAL_PORT_MIN=20000"}, "must be below"},
	} {
		_, err := flags.Marathon(c.arguments, c.variables)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestTheNewlineAtTheEndOfMarathonsSecretCounts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	secret, err := flags.MarathonSecret(flags.Values{"mesos_authentication": "true", "mesos_authentication_secret_file": file})
	if err != nil || secret != "x\n" {
		t.Errorf("%q, %v", secret, err)
	}
}
