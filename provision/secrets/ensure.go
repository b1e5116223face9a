package secrets

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/pki"
	"github.com/mi-lb/mi-lb/provision/redact"
)

// Change is one secret that [Bundle.Ensure] added or replaced.
type Change struct {
	Name string `json:"name"`
	// Why says why, without the value.
	Why string `json:"why"`
}

// Ensure adds what the cluster needs and the bundle does not have, and replaces
// certificates of nodes that have to be. It returns what it did: nothing the
// second time. Secrets of nodes and datacenters that are gone stay.
func (b *Bundle) Ensure(c *cluster.Cluster, now time.Time) ([]Change, error) {
	e := &ensuring{bundle: b}
	e.add(gossipKey, key)
	for _, purpose := range []string{ManagementPurpose, ReplicationPurpose, DNSPurpose, RegistratorPurpose, EdgePurpose} {
		e.token(purpose)
	}
	for _, d := range c.Datacenters {
		for _, user := range []string{ZooKeeperSuper, ZooKeeperMesos, ZooKeeperMarathon} {
			e.add("zookeeper/"+d.Name+"/"+user, password)
		}
		for _, principal := range []string{MesosMarathon, MesosAgent, MesosOperator} {
			e.add("mesos/"+d.Name+"/"+principal, password)
		}
		e.add("marathon/"+d.Name+"/"+MarathonUser, password)
	}
	for _, n := range c.Nodes() {
		e.token(AgentPurpose(n.Name))
	}
	if e.err != nil {
		return nil, e.err
	}
	if b.Get(issuerName).IsEmpty() {
		if err := b.addAuthority(now); err != nil {
			return nil, err
		}
		b.values[issuerName] = redact.New(b.authorities()[0])
		e.changes = append(e.changes, Change{issuerName, "there was none"})
	}
	authority, err := b.Authority()
	if err != nil {
		return nil, err
	}
	for _, n := range c.Nodes() {
		subject := NodeSubject(n)
		why := authority.Why(b.NodePair(n.Name), subject, now)
		if why == "" {
			continue
		}
		pair, err := authority.Issue(subject, now)
		if err != nil {
			return nil, err
		}
		b.values["pki/node/"+n.Name+"/certificate"] = redact.New(pair.Certificate)
		b.values["pki/node/"+n.Name+"/key"] = pair.Key
		e.changes = append(e.changes, Change{"pki/node/" + n.Name + "/certificate", why})
	}
	return e.changes, nil
}

// NodeSubject is who the certificate of a node is for.
func NodeSubject(n *cluster.Node) pki.Subject {
	return pki.ForNode(n.Name, n.Datacenter, n.Has(cluster.ConsulServer), n.Address, n.WANAddress)
}

type ensuring struct {
	bundle  *Bundle
	changes []Change
	err     error
}

func (e *ensuring) add(name string, generate func() (redact.Text, error)) {
	if e.err != nil || !e.bundle.Get(name).IsEmpty() {
		return
	}
	value, err := generate()
	if err != nil {
		e.err = err
		return
	}
	e.bundle.values[name] = value
	e.changes = append(e.changes, Change{name, "there was none"})
}

func (e *ensuring) token(purpose string) {
	e.add("consul/token/"+purpose+"/accessor", uuid)
	e.add("consul/token/"+purpose+"/secret", uuid)
}

// issuerName holds the number of the authority that signs.
const issuerName = "pki/issuer"

// authorities are the numbers of the authorities in the bundle, oldest first: they
// follow each other, and the one that signs is among them.
func (b *Bundle) authorities() []string {
	has := func(n int) bool { return !b.Get("pki/authority/" + authorityNumber(n) + "/certificate").IsEmpty() }
	first, err := strconv.Atoi(b.Get(issuerName).Reveal())
	if err != nil {
		first = 1
	}
	for has(first - 1) {
		first--
	}
	var all []string
	for n := first; has(n); n++ {
		all = append(all, authorityNumber(n))
	}
	return all
}

func authorityNumber(n int) string { return fmt.Sprintf("%03d", n) }

func (b *Bundle) addAuthority(now time.Time) error {
	authority, err := pki.NewAuthority("mi-lb platform", now)
	if err != nil {
		return err
	}
	next := 1
	if all := b.authorities(); len(all) > 0 {
		if _, err := fmt.Sscanf(all[len(all)-1], "%d", &next); err != nil {
			return fmt.Errorf("number the authority: %w", err)
		}
		next++
	}
	prefix := "pki/authority/" + authorityNumber(next) + "/"
	b.values[prefix+"certificate"] = redact.New(authority.Certificate())
	b.values[prefix+"key"] = authority.Key()
	return nil
}

// Authority is the one that signs certificates of nodes.
func (b *Bundle) Authority() (*pki.Authority, error) {
	prefix := "pki/authority/" + b.Get(issuerName).Reveal() + "/"
	authority, err := pki.LoadAuthority(b.Get(prefix+"certificate").Reveal(), b.Get(prefix+"key"))
	if err != nil {
		return nil, fmt.Errorf("load the certificate authority of the bundle: %w", err)
	}
	return authority, nil
}

// TrustedCertificates are the certificates of all authorities that nodes trust, as
// PEM; two while one authority takes over from another.
func (b *Bundle) TrustedCertificates() string {
	all := ""
	for _, n := range b.authorities() {
		all += b.Get("pki/authority/" + n + "/certificate").Reveal()
	}
	return all
}

// NodePair is the certificate and key of a node.
func (b *Bundle) NodePair(node string) pki.Pair {
	return pki.Pair{Certificate: b.Get("pki/node/" + node + "/certificate").Reveal(), Key: b.Get("pki/node/" + node + "/key")}
}

// Rotation is how far a change of the certificate authority has come.
type Rotation string

const (
	// NoRotation is one authority, which signs and is trusted.
	NoRotation Rotation = "none"
	// RotationTrusting is a second one that is trusted and does not sign yet.
	RotationTrusting Rotation = "trusting"
	// RotationSigning is a second one that signs, while the first is still trusted.
	RotationSigning Rotation = "signing"
)

// Rotation says how far a change of the authority has come.
func (b *Bundle) Rotation() Rotation {
	all := b.authorities()
	switch {
	case len(all) < 2:
		return NoRotation
	case b.Get(issuerName).Reveal() == all[0]:
		return RotationTrusting
	}
	return RotationSigning
}

// AdvanceRotation takes the next of three steps: trust a new authority, sign with
// it, forget the old one. Between two steps the platform must be brought up to
// date, or nodes would meet certificates that they do not trust.
func (b *Bundle) AdvanceRotation(now time.Time) (Rotation, error) {
	all := b.authorities()
	if len(all) == 0 {
		return NoRotation, errors.New("the bundle has no certificate authority yet")
	}
	switch b.Rotation() {
	case NoRotation:
		if err := b.addAuthority(now); err != nil {
			return NoRotation, err
		}
	case RotationTrusting:
		b.values[issuerName] = redact.New(all[len(all)-1])
	case RotationSigning:
		for _, n := range all[:len(all)-1] {
			delete(b.values, "pki/authority/"+n+"/certificate")
			delete(b.values, "pki/authority/"+n+"/key")
		}
	}
	return b.Rotation(), nil
}
