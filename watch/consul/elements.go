package consul

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
)

var errNoJSON = errors.New("the answer is no JSON")

// space is what JSON allows between its values.
const space = " \t\r\n"

// eachElement calls with the text of every element of a JSON array; null is an array
// without any. The elements themselves are not looked into.
func eachElement(data []byte, call func(element []byte) error) error {
	return each(data, '[', ']', func(_, element []byte) error { return call(element) })
}

// eachField calls with the name and the text of every field of a JSON object; null is an
// object without any.
func eachField(data []byte, call func(name, value []byte) error) error {
	return each(data, '{', '}', call)
}

func each(data []byte, opens, closes byte, call func(name, value []byte) error) error {
	whole := data
	data = bytes.Trim(data, space)
	if string(data) == "null" {
		return nil
	}
	if len(data) < 2 || data[0] != opens || data[len(data)-1] != closes {
		return notJSON(whole)
	}
	data = bytes.Trim(data[1:len(data)-1], space)
	if len(data) == 0 {
		return nil
	}
	for {
		var name []byte
		if opens == '{' {
			end := skip(data)
			if end < 2 || data[0] != '"' {
				return notJSON(whole)
			}
			name, data = data[1:end-1], bytes.TrimLeft(data[end:], space)
			if len(data) == 0 || data[0] != ':' {
				return notJSON(whole)
			}
			data = bytes.TrimLeft(data[1:], space)
		}
		end := skip(data)
		if end == 0 {
			return notJSON(whole)
		}
		if err := call(name, data[:end]); err != nil {
			return err
		}
		data = bytes.TrimLeft(data[end:], space)
		if len(data) == 0 {
			return nil
		}
		if data[0] != ',' {
			return notJSON(whole)
		}
		data = bytes.TrimLeft(data[1:], space)
	}
}

// notJSON says what the standard decoder thinks is wrong with the text.
func notJSON(data []byte) error {
	var value json.RawMessage
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&value); err != nil {
		return fmt.Errorf("%w: %w", errNoJSON, err)
	}
	return fmt.Errorf("%w of the kind that was asked for", errNoJSON)
}

// skip is where the JSON value ends that the text begins with; 0 if there is no end.
func skip(data []byte) int {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			end := closingQuote(data[i+1:])
			if end < 0 {
				return 0
			}
			if i += end + 1; depth == 0 {
				return i + 1
			}
		case '[', '{':
			depth++
		case ']', '}':
			depth--
			switch {
			case depth == 0:
				return i + 1
			case depth < 0:
				return 0
			}
		case ',', ':', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	if depth > 0 {
		return 0
	}
	return len(data)
}

// closingQuote is where a string ends whose opening quote has been read; -1 if it does not.
func closingQuote(data []byte) int {
	for from := 0; ; {
		at := bytes.IndexByte(data[from:], '"')
		if at < 0 {
			return -1
		}
		at += from
		escapes := 0
		for at-escapes > 0 && data[at-escapes-1] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return at
		}
		from = at + 1
	}
}

// memo remembers what the elements of answers were decoded to. An answer may have
// hundreds of them, of which one or two are others than in the answer before: those are
// decoded, and the rest are the very same values again.
type memo[T any] struct {
	mu    sync.Mutex
	seed  maphash.Seed
	known map[uint64]*remembered[T]
	round int
}

type remembered[T any] struct {
	value T
	round int // of the newest answer that has it
}

// all are the values of a JSON array's elements. What they are made of besides their
// text is given as well: if that is another, so are they.
func (m *memo[T]) all(array, besides []byte, decode func(element []byte) (T, error)) ([]*T, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		m.known, m.seed = map[uint64]*remembered[T]{}, maphash.MakeSeed()
	}
	m.round++
	var hash maphash.Hash
	hash.SetSeed(m.seed)
	_, _ = hash.Write(besides)
	context := hash.Sum64()
	all, different := make([]*T, 0, len(m.known)+1), 0
	err := eachElement(array, func(element []byte) error {
		if string(element) == "null" {
			return nil
		}
		sum := maphash.Bytes(m.seed, element) ^ context
		known := m.known[sum]
		if known == nil {
			value, err := decode(element)
			if err != nil {
				return err
			}
			known = &remembered[T]{value: value}
			m.known[sum] = known
		}
		if known.round != m.round {
			known.round = m.round
			different++
		}
		all = append(all, &known.value)
		return nil
	})
	if err == nil && len(m.known) > different {
		for sum, known := range m.known {
			if known.round != m.round {
				delete(m.known, sum)
			}
		}
	}
	return all, err
}

// metas are the metadata that there were. Many instances have the same, and a map of their
// own for each would be a tenth of what mi-lb takes.
type metas struct {
	mu    sync.Mutex
	known map[string]map[string]string
}

// same is the metadata, in the map of those that had the same before if there are any.
func (m *metas) same(meta map[string]string) map[string]string {
	const most = 1000 // different ones; then it is begun anew
	if len(meta) == 0 {
		return nil
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(meta)) {
		fmt.Fprintf(&text, "%q%q", name, meta[name])
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.known[text.String()]; known != nil {
		return known
	}
	if m.known == nil || len(m.known) >= most {
		m.known = map[string]map[string]string{}
	}
	m.known[text.String()] = meta
	return meta
}

// decode is for elements of which a mistake is said with what it is in.
func decode[T any](element []byte, what string) (T, error) {
	var value T
	if err := json.Unmarshal(element, &value); err != nil {
		return value, fmt.Errorf("read %s: %w", what, err)
	}
	return value, nil
}
