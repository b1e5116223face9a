package encode

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

const (
	// maxName is the longest id that stands for itself. HAProxy has no limit of its
	// own; `show servers state` and the master's logs become unreadable long before.
	maxName = 100
	// keptName is how much of any other id is kept in front of its hash.
	keptName = 60
	// hashedBytes of SHA-256 tell ids apart: 2^40 ids before a collision is likely.
	hashedBytes = 10
)

// Name is the name of the backend, server or frontend that stands for the id. An
// id of letters, digits, "_", "." and "-" of at most 100 bytes is its own name.
// Any other becomes a readable part, ":" and a hash: since no id with ":" is its
// own name, the two kinds never meet, and two ids have one name only if their
// hashes collide. Names made by mi-lb itself ("mi-lb:https") therefore never equal
// that of an id.
func Name(id string) string {
	if isName(id) {
		return id
	}
	var b strings.Builder
	for i := 0; i < len(id) && b.Len() < keptName; i++ {
		if isNameByte(id[i]) {
			b.WriteByte(id[i])
		} else {
			b.WriteByte('_')
		}
	}
	sum := sha256.Sum256([]byte(id))
	return b.String() + ":" + hex.EncodeToString(sum[:hashedBytes])
}

// backup ends the names of backup servers. No other name ends so.
const backup = ":backup"

// Server is the name of the server that stands for the id. Whether a server is a backup
// cannot change while HAProxy runs: with another name it is another server, which comes
// as the first one goes.
func Server(id string, isBackup bool) string {
	if isBackup {
		return Name(id) + backup
	}
	return Name(id)
}

// IsBackup says whether a name that [Server] gave is that of a backup server.
func IsBackup(name string) bool { return strings.HasSuffix(name, backup) }

func isName(id string) bool {
	if id == "" || len(id) > maxName {
		return false
	}
	for i := range len(id) {
		if !isNameByte(id[i]) {
			return false
		}
	}
	return true
}

func isNameByte(c byte) bool { return isAlphanumeric(c) || c == '_' || c == '.' || c == '-' }

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// Host is a host name as it stands in a map's key: in lower case, without a
// trailing dot. "*" may stand for the first label. It is an error for a host to
// hold anything but letters, digits, "-", "_" and ".".
func Host(host string) (string, error) {
	h := strings.ToLower(strings.TrimSuffix(host, "."))
	rest := strings.TrimPrefix(h, "*.")
	if rest == "" || len(h) > 253 {
		return "", refused("host", host, "is empty or longer than 253 bytes")
	}
	for label := range strings.SplitSeq(rest, ".") {
		if label == "" {
			return "", refused("host", host, "has an empty label")
		}
		for i := range len(label) {
			if c := label[i]; !isAlphanumeric(c) && c != '-' && c != '_' {
				return "", refused("host", host, "has a character that no host name has")
			}
		}
	}
	return h, nil
}

// pathPunctuation is what RFC 3986 allows in a path besides letters and digits,
// without "$" and "'", which mean something to HAProxy's configuration.
const pathPunctuation = "/-._~!&()*+,;=:@%"

// Path is the absolute path of a URL as it stands in a map's key or as a word of
// its own in the configuration: a check's path, a pattern. It is not fit for a log
// format; see [LogFormat].
func Path(path string) (string, error) {
	if path == "" || path[0] != '/' {
		return "", refused("path", path, `does not begin with "/"`)
	}
	for i := range len(path) {
		if c := path[i]; !isAlphanumeric(c) && strings.IndexByte(pathPunctuation, c) < 0 {
			return "", refused("path", path, "has a character that no path has unencoded")
		}
	}
	return path, nil
}

// Number is a whole number of at least 0.
func Number(n int) (string, error) {
	if n < 0 {
		return "", refused("number", strconv.Itoa(n), "is negative")
	}
	return strconv.Itoa(n), nil
}

// maxDuration is what HAProxy's 32 bit of milliseconds can hold.
const maxDuration = (1<<31 - 1) * time.Millisecond

// Duration is a duration in whole milliseconds, rounded up, with its unit: the
// units that Go and HAProxy have in common do not all mean the same.
func Duration(d time.Duration) (string, error) {
	if d < 0 || d > maxDuration {
		return "", refused("duration", d.String(), "is negative or longer than "+maxDuration.String())
	}
	switch {
	case d > 0 && d%time.Hour == 0:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h", nil
	case d > 0 && d%time.Second == 0:
		return strconv.FormatInt(int64(d/time.Second), 10) + "s", nil
	}
	return strconv.FormatInt(int64((d+time.Millisecond-1)/time.Millisecond), 10) + "ms", nil
}

// Address is an address and port: "10.0.0.1:80", "[::1]:80". One with a zone
// ("fe80::1%eth0") is refused, because a zone may be any text.
func Address(a netip.AddrPort) (string, error) {
	if !a.IsValid() || a.Port() == 0 || a.Addr().Zone() != "" {
		return "", refused("address", a.String(), "is no address with a port, or has a zone")
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String(), nil
}

// Quote is the text as one word of the configuration, in which nothing is
// expanded, whatever it holds: strong quotes, with every "'" outside of them. Text
// with a line end, NUL or other control character but tab is refused. What reads
// the word may give it a meaning of its own; see [LogFormat].
func Quote(text string) (string, error) {
	for i := range len(text) {
		if c := text[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return "", refused("text", text, "has a control character")
		}
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'", nil
}

// LogFormat is the text as one word where HAProxy expects a log format: as
// [Quote], and "%" stands for itself.
func LogFormat(text string) (string, error) {
	return Quote(strings.ReplaceAll(text, "%", "%%"))
}

// MapKey is the text as the key of a map row. HAProxy has no quoting there: a key
// ends at the first blank, and a line that begins with "#" is a comment.
func MapKey(key string) (string, error) {
	if key == "" || key[0] == '#' {
		return "", refused("map key", key, `is empty or begins with "#"`)
	}
	for i := range len(key) {
		if c := key[i]; c <= 0x20 || c >= 0x7f {
			return "", refused("map key", key, "has a blank, a control character or one outside of ASCII")
		}
	}
	return key, nil
}

// MapValue is the text as the value of a map row: the rest of its line.
func MapValue(value string) (string, error) {
	if value == "" || value != strings.Trim(value, " \t") {
		return "", refused("map value", value, "is empty or has blanks around it")
	}
	for i := range len(value) {
		if c := value[i]; c < 0x20 || c >= 0x7f {
			return "", refused("map value", value, "has a control character or one outside of ASCII")
		}
	}
	return value, nil
}

// MapRow is the line of a map file, without its end.
func MapRow(key, value string) (string, error) {
	k, err := MapKey(key)
	if err != nil {
		return "", err
	}
	v, err := MapValue(value)
	if err != nil {
		return "", err
	}
	return k + " " + v, nil
}

// Argument is the text as one argument of a command on HAProxy's socket: blanks,
// ";", "\", quotes and "<", which begins a payload when doubled, are escaped.
// The socket cannot say the empty argument, nor one with a line end.
func Argument(text string) (string, error) {
	if text == "" {
		return "", refused("argument", text, "is empty")
	}
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		switch {
		case c < 0x20 && c != '\t', c == 0x7f:
			return "", refused("argument", text, "has a control character")
		case strings.IndexByte(" \t;\\\"'<", c) >= 0, i == 0 && (c == '#' || c == '@'):
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

// errRefused is what every error of this package wraps.
var errRefused = errors.New("does not fit in HAProxy's files")

func refused(place, value, why string) error {
	return fmt.Errorf("%s %q %w: it %s", place, watch.Printable(value), errRefused, why)
}
