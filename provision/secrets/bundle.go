package secrets

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/provision/redact"
)

// Bundle is all secrets of a platform, by name. It is changed by its own methods
// only, and is not safe for concurrent changes.
type Bundle struct {
	values map[string]redact.Text
}

// New is an empty bundle.
func New() *Bundle { return &Bundle{values: map[string]redact.Text{}} }

// Names are the names of all secrets, sorted. A name says what a secret is for,
// and is none itself.
func (b *Bundle) Names() []string { return slices.Sorted(maps.Keys(b.values)) }

// Get is the secret of that name; empty if there is none.
func (b *Bundle) Get(name string) redact.Text { return b.values[name] }

// Values are all secrets, for masking them in what is printed.
func (b *Bundle) Values() []redact.Text { return slices.Collect(maps.Values(b.values)) }

// String says how much there is.
func (b *Bundle) String() string { return fmt.Sprintf("bundle of %d secrets", len(b.values)) }

// GoString says how much there is.
func (b *Bundle) GoString() string { return b.String() }

// MarshalJSON lists the names.
func (b *Bundle) MarshalJSON() ([]byte, error) { return json.Marshal(b.Names()) }

// Set puts a secret of the operator's choice in, as when a platform that exists
// is taken over. It refuses a value that the programs it is for cannot take.
func (b *Bundle) Set(name string, value redact.Text) error {
	if value.IsEmpty() {
		return fmt.Errorf("secret %s: it is empty", name)
	}
	for prefix, check := range map[string]func(string) bool{
		"zookeeper/": isAlphanumeric,
		"mesos/":     isAlphanumeric,
		"marathon/":  isAlphanumeric,
	} {
		if strings.HasPrefix(name, prefix) && !check(value.Reveal()) {
			return fmt.Errorf("secret %s: it may have letters and digits only, because it becomes a part of URLs", name)
		}
	}
	if name == gossipKey || name == nextGossipKey {
		if key, err := base64.StdEncoding.DecodeString(value.Reveal()); err != nil || len(key) != 16 && len(key) != 24 && len(key) != 32 {
			return fmt.Errorf("secret %s: it must be 16, 24 or 32 bytes in base64", name)
		}
	}
	b.values[name] = value
	return nil
}

func isAlphanumeric(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	})
}

const (
	gossipKey     = "consul/gossip-key"
	nextGossipKey = "consul/gossip-key-next"
)

// GossipKey is Consul's key for gossip in all datacenters: the one that machines start
// with.
func (b *Bundle) GossipKey() redact.Text { return b.Get(gossipKey) }

// NextGossipKey is the key that is about to replace it; empty if none is.
func (b *Bundle) NextGossipKey() redact.Text { return b.Get(nextGossipKey) }

// BeginGossip generates the next gossip key, if there is none yet.
func (b *Bundle) BeginGossip() error {
	if !b.NextGossipKey().IsEmpty() {
		return nil
	}
	next, err := key()
	if err != nil {
		return err
	}
	b.values[nextGossipKey] = next
	return nil
}

// EndGossip has the next gossip key replace the one that there was. All agents must
// use it by then.
func (b *Bundle) EndGossip() {
	if next := b.NextGossipKey(); !next.IsEmpty() {
		b.values[gossipKey] = next
		delete(b.values, nextGossipKey)
	}
}

// Token is an ACL token of Consul, with ids chosen beforehand.
type Token struct {
	Accessor string
	Secret   redact.Text
}

// Purposes of Consul tokens that there is one of; [AgentPurpose] gives a node's.
const (
	// ManagementPurpose is the initial management token.
	ManagementPurpose = "management"
	// ReplicationPurpose is for servers of other datacenters than the primary.
	ReplicationPurpose = "replication"
	// DNSPurpose answers DNS queries.
	DNSPurpose = "dns"
	// RegistratorPurpose registers containers.
	RegistratorPurpose = "registrator"
	// EdgePurpose reads the catalogs of all datacenters.
	EdgePurpose = "edge"
)

// AgentPurpose is the token of one node's agent.
func AgentPurpose(node string) string { return "agent/" + node }

// ConsulToken is the token for a purpose.
func (b *Bundle) ConsulToken(purpose string) Token {
	return Token{
		Accessor: b.Get("consul/token/" + purpose + "/accessor").Reveal(),
		Secret:   b.Get("consul/token/" + purpose + "/secret"),
	}
}

// Login is a user and password.
type Login struct {
	User     string
	Password redact.Text
}

// Pair is "user:password", as some programs take it.
func (l Login) Pair() redact.Text { return redact.New(l.User + ":" + l.Password.Reveal()) }

// Users of ZooKeeper.
const (
	ZooKeeperSuper    = "super"
	ZooKeeperMesos    = "mesos"
	ZooKeeperMarathon = "marathon"
)

// ZooKeeper is the login of a user in a datacenter's ensemble.
func (b *Bundle) ZooKeeper(datacenter, user string) Login {
	return Login{user, b.Get("zookeeper/" + datacenter + "/" + user)}
}

// Digest is what ZooKeeper keeps of a login: "user:" and the base64 of the SHA-1 of
// "user:password". That is ZooKeeper's scheme; it is no protection for a weak password.
func (l Login) Digest() string {
	sum := sha1.Sum([]byte(l.Pair().Reveal()))
	return l.User + ":" + base64.StdEncoding.EncodeToString(sum[:])
}

// Principals of Mesos.
const (
	MesosMarathon = "marathon"
	MesosAgent    = "agent"
	MesosOperator = "mi-lb"
)

// Mesos is the credential of a principal with a datacenter's masters.
func (b *Bundle) Mesos(datacenter, principal string) Login {
	return Login{principal, b.Get("mesos/" + datacenter + "/" + principal)}
}

// MarathonUser is who may use Marathon's API.
const MarathonUser = "mi-lb"

// Marathon is the login of a datacenter's Marathon.
func (b *Bundle) Marathon(datacenter string) Login {
	return Login{MarathonUser, b.Get("marathon/" + datacenter + "/" + MarathonUser)}
}

const passwordLength = 32

// password is letters and digits, of about 190 bits.
func password() (redact.Text, error) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	var b strings.Builder
	for b.Len() < passwordLength {
		random := make([]byte, passwordLength)
		if _, err := rand.Read(random); err != nil {
			return redact.Text{}, fmt.Errorf("generate a password: %w", err)
		}
		for _, c := range random {
			// Only whole multiples of the alphabet, so that no letter is likelier.
			if int(c) < 256/len(alphabet)*len(alphabet) && b.Len() < passwordLength {
				b.WriteByte(alphabet[int(c)%len(alphabet)])
			}
		}
	}
	return redact.New(b.String()), nil
}

// uuid is a random UUID, the form of Consul's tokens.
func uuid() (redact.Text, error) {
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return redact.Text{}, fmt.Errorf("generate a token: %w", err)
	}
	random[6] = random[6]&0x0f | 0x40
	random[8] = random[8]&0x3f | 0x80
	return redact.New(fmt.Sprintf("%x-%x-%x-%x-%x", random[:4], random[4:6], random[6:8], random[8:10], random[10:])), nil
}

// key is 32 random bytes in base64, the form of Consul's gossip keys.
func key() (redact.Text, error) {
	random := make([]byte, 32)
	if _, err := rand.Read(random); err != nil {
		return redact.Text{}, fmt.Errorf("generate a key: %w", err)
	}
	return redact.New(base64.StdEncoding.EncodeToString(random)), nil
}
