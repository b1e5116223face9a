package consul

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"testing"
)

// FuzzElementsAreThoseOfTheJSON: whatever is JSON is taken apart as encoding/json does it,
// and what is not makes an error sooner or later.
func FuzzElementsAreThoseOfTheJSON(f *testing.F) {
	for _, seed := range []string{
		`[]`, `null`, ` [ 1 , "a]\"b" ,{"x":[{}]},null, true,-1e3 ] `, `["\\","\\\"",""]`, `[[],[[]],{}]`, `[1,]`, `[1 2]`, `[`, `["]`, `[}]`, `[]]`,
		`{"Node":{"a":"}"},"Services":[1,2]}`, `{ "a" : 1 , "b\"c":[] }`, `{"a"}`, `{"a":}`, `{1:2}`, `{}`, `x`, ``, "[]\f", "[1\f]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var elements [][]byte
		err := eachElement(data, func(e []byte) error {
			elements = append(elements, e)
			return nil
		})
		var want []json.RawMessage
		if json.Unmarshal(data, &want) == nil {
			if err != nil || len(elements) != len(want) {
				t.Fatalf("%q: %q, %v", data, elements, err)
			}
			for i, e := range elements {
				if !bytes.Equal(e, want[i]) {
					t.Errorf("element %d of %q: %q", i, data, e)
				}
			}
		} else if err == nil {
			_, err := new(memo[any]).all(data, nil, func(e []byte) (any, error) { return decode[any](e, "an element") })
			if err == nil {
				t.Errorf("%q is no array", data)
			}
		}
		fields := map[string]string{}
		err = eachField(data, func(name, value []byte) error {
			var text string
			if err := json.Unmarshal(fmt.Appendf(nil, "\"%s\"", name), &text); err != nil {
				return err
			}
			fields[text] = string(value)
			return nil
		})
		var object map[string]json.RawMessage
		if json.Unmarshal(data, &object) == nil && (err != nil || len(fields) != len(object)) {
			t.Errorf("%q: %q, %v", data, fields, err)
		}
	})
}

func TestWhatIsTheSameInAnAnswerIsNotDecodedAgain(t *testing.T) {
	var m memo[string]
	decoded := 0
	all := func(answer, besides string) []*string {
		t.Helper()
		values, err := m.all([]byte(answer), []byte(besides), func(e []byte) (string, error) {
			decoded++
			return decode[string](e, "an element")
		})
		if err != nil {
			t.Fatal(err)
		}
		return values
	}
	first := all(`["a","b","c"]`, "x")
	second := all(`["a","d","c",null,"a"]`, "x")
	if decoded != 4 || len(second) != 4 || second[0] != first[0] || second[2] != first[2] || second[3] != first[0] || *second[1] != "d" {
		t.Errorf("%d decoded", decoded)
	}
	if len(m.known) != 3 {
		t.Errorf("%d remembered", len(m.known))
	}
	if third := all(`["a"]`, "y"); third[0] == first[0] || decoded != 5 || len(m.known) != 1 {
		t.Errorf("with something else besides: %d decoded, %d remembered", decoded, len(m.known))
	}
	if _, err := m.all([]byte(`["a",1]`), nil, func(e []byte) (string, error) { return decode[string](e, "an element") }); err == nil {
		t.Error("an element that cannot be decoded is no error")
	}
	if again := all(`["a"]`, "y"); decoded != 5 || len(again) != 1 {
		t.Errorf("after an error: %d decoded", decoded)
	}
}

func TestEqualMetadataIsKeptOnce(t *testing.T) {
	var m metas
	one := m.same(map[string]string{"a": "1", "b": "2"})
	again := m.same(map[string]string{"b": "2", "a": "1"})
	one["seen"] = "yes"
	if again["seen"] != "yes" {
		t.Error("equal metadata is kept twice")
	}
	for _, other := range []map[string]string{{"a": "1"}, {"a": "1\"", "b": "2"}, {"a": "1b", "": "2"}, {`a"1`: "", "b": "2"}} {
		if got := m.same(maps.Clone(other)); !maps.Equal(got, other) {
			t.Errorf("%v became %v", other, got)
		}
	}
	if m.same(nil) != nil || m.same(map[string]string{}) != nil {
		t.Error("no metadata is some")
	}
	for i := range 3000 {
		m.same(map[string]string{"n": strconv.Itoa(i)})
	}
	if len(m.known) > 1000 {
		t.Errorf("%d are kept", len(m.known))
	}
}
