package marathon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// object is a JSON object whose fields are read one by one: any of them may be
// null, missing or of a type that no version of Marathon documents.
type object map[string]json.RawMessage

// complaints collects findings about one app document.
type complaints struct {
	source   string
	app      string
	findings []watch.Finding
	dropped  int
}

// mostFindings per app: a document of a million wrong fields must not become a
// million findings.
const mostFindings = 20

func (c *complaints) add(f watch.Finding) {
	if len(c.findings) == mostFindings {
		c.dropped++
		return
	}
	f.Source, f.Service = c.source, watch.Printable(c.app)
	f.Key = watch.Printable(f.Key)
	c.findings = append(c.findings, f)
}

func (c *complaints) wrongType(key, want string, raw json.RawMessage) {
	c.add(watch.Finding{
		Code:    "invalid-document",
		Key:     key,
		Message: fmt.Sprintf("%s expected, found %s", want, kindOf(raw)),
		Instead: "the field is ignored",
	})
}

// all are the findings, with one more that counts what was dropped.
func (c *complaints) all() []watch.Finding {
	if c.dropped == 0 {
		return c.findings
	}
	return append(c.findings, watch.Finding{
		Code: "invalid-document", Source: c.source, Service: watch.Printable(c.app),
		Message: fmt.Sprintf("%d more findings about this app", c.dropped),
	})
}

// kindOf names the type of a value, never the value: it may be a secret.
func kindOf(raw json.RawMessage) string {
	switch raw = bytes.TrimSpace(raw); {
	case len(raw) == 0:
		return "nothing"
	case raw[0] == '{':
		return "an object"
	case raw[0] == '[':
		return "a list"
	case raw[0] == '"':
		return "a string"
	case raw[0] == 't', raw[0] == 'f':
		return "a boolean"
	case raw[0] == 'n':
		return "null"
	default:
		return "a number"
	}
}

func absent(raw json.RawMessage) bool {
	return len(raw) == 0 || bytes.Equal(bytes.TrimSpace(raw), []byte("null"))
}

func (c *complaints) asObject(key string, raw json.RawMessage) object {
	if absent(raw) {
		return nil
	}
	var o object
	if json.Unmarshal(raw, &o) != nil {
		c.wrongType(key, "an object", raw)
		return nil
	}
	return o
}

func (c *complaints) object(o object, key string) object { return c.asObject(key, o[key]) }

// list is the elements of a list, and whether there is one at all.
func (c *complaints) list(o object, key string) ([]json.RawMessage, bool) {
	raw := o[key]
	if absent(raw) {
		return nil, false
	}
	var l []json.RawMessage
	if json.Unmarshal(raw, &l) != nil {
		c.wrongType(key, "a list", raw)
		return nil, false
	}
	return l, true
}

func (c *complaints) objects(o object, key string) []object {
	raw, _ := c.list(o, key)
	all := make([]object, 0, len(raw))
	for i, r := range raw {
		if e := c.asObject(fmt.Sprintf("%s[%d]", key, i), r); e != nil {
			all = append(all, e)
		}
	}
	return all
}

func (c *complaints) string(o object, key string) string {
	raw := o[key]
	if absent(raw) {
		return ""
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		c.wrongType(key, "a string", raw)
	}
	return s
}

// strings is a map of strings; values of other types are left out.
func (c *complaints) strings(o object, key string) map[string]string {
	values := c.object(o, key)
	if len(values) == 0 {
		return nil
	}
	all := make(map[string]string, len(values))
	for k, raw := range values {
		var s string
		if absent(raw) {
			continue
		}
		if json.Unmarshal(raw, &s) != nil {
			c.wrongType(key+"."+k, "a string", raw)
			continue
		}
		all[k] = s
	}
	return all
}

// number is a number, also one in a string, and whether there is one.
func (c *complaints) number(key string, raw json.RawMessage) (float64, bool) {
	if absent(raw) {
		return 0, false
	}
	text := raw
	var s string
	if json.Unmarshal(raw, &s) == nil {
		text = json.RawMessage(s)
	}
	f, err := strconv.ParseFloat(string(bytes.TrimSpace(text)), 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		c.wrongType(key, "a number", raw)
		return 0, false
	}
	return f, true
}

// port is a port number, 0 where there is none or it is no port, and whether
// the field is there.
func (c *complaints) port(key string, raw json.RawMessage) (int, bool) {
	f, ok := c.number(key, raw)
	if !ok {
		return 0, false
	}
	if f < 0 || f > 65535 || f != math.Trunc(f) {
		c.add(watch.Finding{
			Code: "invalid-document", Key: key,
			Message: fmt.Sprintf("%v is not a port", f), Instead: "the port is ignored",
		})
		return 0, true
	}
	return int(f), true
}

// count is a number from 0 to a million, 0 where there is none.
func (c *complaints) count(o object, key string) int {
	f, _ := c.number(key, o[key])
	return int(max(0, min(f, 1e6)))
}

// seconds is a duration, and whether there is one; negative ones are 0.
func (c *complaints) seconds(o object, key string) (time.Duration, bool) {
	f, ok := c.number(key, o[key])
	const most = 10 * 365 * 24 * 3600
	return time.Duration(max(0, min(f, most)) * float64(time.Second)), ok
}

// time is an RFC 3339 time, the zero time where there is none.
func (c *complaints) time(o object, key string) time.Time {
	s := c.string(o, key)
	if s == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		c.wrongType(key, "a time", o[key])
		return time.Time{}
	}
	return t.UTC()
}
