package base

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/vars"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/pki"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

// Name is the component's name.
const Name = "base"

// TLSGroup is the group that may read a machine's key, and the user of that name.
const TLSGroup = "mi-lb-tls"

// New is the component.
func New() component.Component { return base{} }

type base struct{}

// Name implements [component.Component].
func (base) Name() string { return Name }

// On implements [component.Component]: every machine has it.
func (base) On(*cluster.Node) bool { return true }

// Variables implements [component.Component].
func (base) Variables() []cluster.VariableDoc {
	return []cluster.VariableDoc{
		{Name: "tls_dir", Doc: "directory of the machine's certificate and key; default /etc/mi-lb/tls"},
		{Name: "base_packages", Doc: "list of further packages for every machine"},
		{Name: "base_sysctl", Doc: "mapping of further kernel settings, which override those of mi-lb"},
		{Name: "base_nofile", Doc: "how many files a login may have open; default 65536"},
		{Name: "base_journal_size", Doc: "most that the system's journal takes on disk; default 1G"},
		{Name: "base_log_days", Doc: "for how many days logs are kept that the journal does not have; default 7"},
		{Name: "base_time", Doc: "auto (chrony where nothing keeps the clock right), chrony or none; default auto"},
		{Name: "base_time_servers", Doc: "list of NTP servers for chrony; default those of its package"},
	}
}

// TLS is where a machine has its certificate, its key, and those it trusts.
type TLS struct{ CA, Certificate, Key string }

// TLSFiles is where a node has its certificate and key.
func TLSFiles(n *cluster.Node) TLS {
	dir := vars.For(Name, n).Path("tls_dir", "/etc/mi-lb/tls")
	return TLS{CA: dir + "/ca.pem", Certificate: dir + "/node.pem", Key: dir + "/node-key.pem"}
}

// Machine are the facts of a node whose system is one that components know, or the
// problem that they are missing or it is not.
func Machine(p component.Platform, n *cluster.Node, of string) (*facts.Facts, []component.Problem) {
	f := p.Facts[n.Name]
	switch {
	case f == nil:
		return nil, []component.Problem{{
			Code: "no-facts", Node: n.Name, Component: of,
			Message: "nothing is known about the machine", Advice: "see why it is not reached",
		}}
	case f.System.Family != facts.Debian && f.System.Family != facts.RedHat:
		return nil, []component.Problem{{
			Fatal: true, Code: "system", Node: n.Name, Component: of,
			Message: fmt.Sprintf("%s is of neither the Debian nor the Red Hat family", f.System.Name),
			Advice:  "use Debian, Ubuntu, RHEL or one of its likes",
		}}
	}
	return f, nil
}

// Certificate is a node's certificate and key from the bundle, or the problem that
// there is none.
func Certificate(p component.Platform, n *cluster.Node, of string) (pki.Pair, []component.Problem) {
	pair := p.Secrets.NodePair(n.Name)
	if pair.Certificate == "" || pair.Key.IsEmpty() || p.Secrets.TrustedCertificates() == "" {
		return pki.Pair{}, []component.Problem{{
			Fatal: true, Code: "secrets", Node: n.Name, Component: of,
			Message: "the secrets have no certificate for it", Advice: "run mi-lb bootstrap secrets init",
		}}
	}
	return pair, nil
}

// Desired implements [component.Component].
func (base) Desired(p component.Platform, n *cluster.Node) (*desired.Part, []component.Problem) {
	f, problems := Machine(p, n, Name)
	if f == nil {
		return nil, problems
	}
	pair, problems := Certificate(p, n, Name)
	if problems != nil {
		return nil, problems
	}
	r := vars.For(Name, n)
	s := read(r)
	if r.Bad() {
		return nil, r.Problems()
	}
	tls := TLSFiles(n)
	part := &desired.Part{
		Component: Name,
		Packages:  packages(f.System.Family, s),
		Users:     []desired.User{{Name: TLSGroup}},
		Directories: []desired.Directory{
			{Path: "/etc/mi-lb", Mode: 0o755, Owner: "root:root"},
			{Path: parent(tls.CA), Mode: 0o755, Owner: "root:root"},
			{Path: "/var/lib/mi-lb", Mode: 0o755, Owner: "root:root"},
		},
		Files: []desired.File{
			{Path: tls.CA, Mode: 0o644, Owner: "root:root", Content: p.Secrets.TrustedCertificates()},
			{Path: tls.Certificate, Mode: 0o644, Owner: "root:root", Content: pair.Certificate},
			{Path: tls.Key, Mode: 0o640, Owner: "root:" + TLSGroup, Secret: pair.Key},
			{
				Path: "/etc/sysctl.d/60-mi-lb.conf", Mode: 0o644, Owner: "root:root", Content: sysctl(s),
				Then: "sysctl -e -q -p /etc/sysctl.d/60-mi-lb.conf",
			},
			{Path: "/etc/security/limits.d/60-mi-lb.conf", Mode: 0o644, Owner: "root:root", Content: limits(s)},
			{Path: "/etc/logrotate.d/mi-lb", Mode: 0o644, Owner: "root:root", Content: logrotate(s)},
			{
				Path: "/etc/systemd/journald.conf.d/60-mi-lb.conf", Mode: 0o644, Owner: "root:root", Content: journald(s),
				Then: "systemctl restart systemd-journald.service",
			},
		},
	}
	s.keepTime(f, part)
	return part, nil
}

func parent(path string) string { return path[:strings.LastIndexByte(path, '/')] }

// Healthy implements [component.Component]: the machine's certificate is good by the
// machine's own clock. A wrong clock and a missing certificate look alike to all that
// use TLS, and are told apart here.
func (base) Healthy(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	host, err := a.Host(n.Name)
	if err != nil {
		return err
	}
	tls := TLSFiles(n)
	r, err := host.Run(ctx, ssh.Command{Line: fmt.Sprintf("date +%%s && cat %s && printf '%%s\\n' %s && cat %s",
		ssh.Quote(tls.CA), ssh.Quote(separator), ssh.Quote(tls.Certificate))})
	if err != nil {
		return fmt.Errorf("read the machine's certificate: %w", err)
	}
	clock, rest, _ := strings.Cut(string(r.Stdout), "\n")
	seconds, err := strconv.ParseInt(clock, 10, 64)
	if err != nil {
		return fmt.Errorf("read the machine's clock: %q is no time", clock)
	}
	ca, certificate, _ := strings.Cut(rest, separator+"\n")
	return verify(ca, certificate, time.Unix(seconds, 0))
}

const separator = "=== certificate ==="

func verify(ca, certificate string, now time.Time) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(ca)) {
		return errors.New("the machine trusts no certificate authority: its ca.pem has none")
	}
	c, err := pki.ParseCertificate(certificate)
	if err != nil {
		return fmt.Errorf("read the machine's certificate: %w", err)
	}
	_, err = c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return fmt.Errorf("by the machine's clock (%s) its certificate is not valid, which is from %s to %s: set the clock right",
			now.UTC().Format(time.RFC3339), c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
	}
	if err != nil {
		return fmt.Errorf("the machine's certificate is not good: %w", err)
	}
	return nil
}
