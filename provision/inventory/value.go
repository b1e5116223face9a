package inventory

import (
	"encoding/json"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// Variable is one value and where it was set.
//
// Value is nil, bool, int64, *big.Int, float64, string, []any, map[string]any,
// [*Encrypted] or [Verbatim], and is never changed after it was read.
type Variable struct {
	Value any
	At    Position
}

// Verbatim is a string that is no template, whatever it looks like: what YAML
// tags !unsafe.
type Verbatim string

// Encrypted is a value encrypted with Ansible Vault. It is decrypted when it is
// asked for, so that one whose password nobody has harms nobody who does not.
type Encrypted struct {
	ciphertext string
	keyring    *Keyring
}

// String hides the value.
func (*Encrypted) String() string { return "(encrypted)" }

// MarshalJSON hides the value.
func (*Encrypted) MarshalJSON() ([]byte, error) { return json.Marshal("(encrypted)") }

// isTemplate says whether Ansible would run the value through Jinja.
func isTemplate(value any) bool {
	switch v := value.(type) {
	case string:
		return strings.Contains(v, "{{") || strings.Contains(v, "{%") || strings.Contains(v, "{#")
	case []any:
		for _, item := range v {
			if isTemplate(item) {
				return true
			}
		}
	case map[string]any:
		for _, item := range v {
			if isTemplate(item) {
				return true
			}
		}
	}
	return false
}

// formatFloat writes a float as Python does: 1.0, 1e+16, inf.
func formatFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 0):
		return strings.TrimPrefix(strings.ToLower(strconv.FormatFloat(f, 'g', -1, 64)), "+")
	case f != 0 && (math.Abs(f) >= 1e16 || math.Abs(f) < 1e-4):
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// Text is a scalar as a string, as a template or a file would have it; ok is
// false for lists and mappings.
func Text(value any) (s string, ok bool) {
	switch v := value.(type) {
	case nil:
		return "", true
	case string:
		return v, true
	case Verbatim:
		return string(v), true
	case bool:
		if v {
			return "True", true
		}
		return "False", true
	case int64:
		return strconv.FormatInt(v, 10), true
	case *big.Int:
		return v.String(), true
	case float64:
		return formatFloat(v), true
	}
	return "", false
}

// Plain is a value for printing as JSON: as it was written, with what is
// encrypted replaced.
func Plain(value any) any {
	switch v := value.(type) {
	case Verbatim:
		return string(v)
	case *Encrypted:
		return v.String()
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return formatFloat(v)
		}
		return json.Number(formatFloat(v))
	case *big.Int:
		return json.Number(v.String())
	case []any:
		items := make([]any, len(v))
		for i, item := range v {
			items[i] = Plain(item)
		}
		return items
	case map[string]any:
		items := make(map[string]any, len(v))
		for key, item := range v {
			items[key] = Plain(item)
		}
		return items
	}
	return value
}

// IsSecretName says whether a variable of this name holds something that must
// not be shown.
func IsSecretName(name string) bool {
	name = strings.ToLower(name)
	if strings.HasSuffix(name, "_file") || strings.HasSuffix(name, "_path") || strings.HasSuffix(name, "_url") {
		return false
	}
	for _, word := range []string{"password", "passwd", "passphrase", "secret", "token", "gossip_key", "private_key", "credential", "_pass"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}
