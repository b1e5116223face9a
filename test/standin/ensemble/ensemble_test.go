package ensemble_test

import (
	"reflect"
	"testing"

	"github.com/mi-lb/mi-lb/test/standin/ensemble"
)

func TestURLs(t *testing.T) {
	servers := []string{"a:2181", "b:2181"}
	for _, c := range []struct {
		text            string
		mesos, marathon *ensemble.URL // nil: refused
	}{
		{"zk://a:2181,b:2181/mesos", &ensemble.URL{Servers: servers, Path: "/mesos"}, &ensemble.URL{Servers: servers, Path: "/mesos"}},
		{
			"zk://u:p@a:2181,b:2181/mesos", &ensemble.URL{Servers: servers, User: "u", Password: "p", Path: "/mesos"},
			&ensemble.URL{Servers: servers, User: "u", Password: "p", Path: "/mesos"},
		},
		// The login ends at the last @ for Mesos, and has none in it for Marathon.
		{"zk://u:p@x@a:2181,b:2181/mesos", &ensemble.URL{Servers: servers, User: "u", Password: "p@x", Path: "/mesos"}, nil},
		// The path begins at the first slash, even in a password.
		{"zk://u:p/x@a:2181/mesos", &ensemble.URL{Servers: []string{"u:p"}, Path: "/x@a:2181/mesos"}, &ensemble.URL{Servers: []string{"a:2181"}, User: "u", Password: "p/x", Path: "/mesos"}},
		{"zk://[::1]:2181/mesos", &ensemble.URL{Servers: []string{"[::1]:2181"}, Path: "/mesos"}, nil},
		{"zk://u@a:2181/mesos", nil, nil},
		{"a:2181/mesos", nil, nil},
	} {
		for name, parse := range map[string]struct {
			of   func(string) (ensemble.URL, error)
			want *ensemble.URL
		}{"Mesos": {ensemble.ParseMesos, c.mesos}, "Marathon": {ensemble.ParseMarathon, c.marathon}} {
			got, err := parse.of(c.text)
			if (err != nil) != (parse.want == nil) || parse.want != nil && !reflect.DeepEqual(got, *parse.want) {
				t.Errorf("%s, %s: %+v, %v", name, c.text, got, err)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"zk://a:2181,b:2181/mesos", "zk://u:p@a:1/x", "zk://@/", "zk://"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := ensemble.ParseMesos(s); err == nil && (len(u.Servers) == 0 || u.Path == "" || u.Path[0] != '/') {
			t.Errorf("Mesos: %q: %+v", s, u)
		}
		if u, err := ensemble.ParseMarathon(s); err == nil && (len(u.Servers) == 0 || u.Path == "" || u.Path[0] != '/') {
			t.Errorf("Marathon: %q: %+v", s, u)
		}
	})
}
