package inventory

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"reflect"
	"strings"
	"testing"
)

// ask Python what it makes of many strings at once.
func askPython(t *testing.T, program string, questions []string, answers any) {
	t.Helper()
	command := exec.Command("python3", "-W", "ignore", "-c", program)
	text, err := json.Marshal(questions)
	if err != nil {
		t.Fatal(err)
	}
	command.Stdin = bytes.NewReader(text)
	output, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(output, answers); err != nil {
		t.Fatal(err)
	}
}

// sentences joins random pieces.
func sentences(n int, pieces []string) []string {
	random := rand.New(rand.NewPCG(1, 2))
	all := make([]string, n)
	for i := range all {
		var b strings.Builder
		for range 1 + random.IntN(7) {
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
		all[i] = b.String()
	}
	return all
}

func TestValuesAreTypedAsPythonTypesThem(t *testing.T) {
	const program = `
import ast, json, sys
def plain(v):
    if isinstance(v, bool) or v is None: return v
    if isinstance(v, (tuple, list)): return [plain(i) for i in v]
    if isinstance(v, dict): return {("k" + str(k).lower() if isinstance(k, bool) else "knull" if k is None else "k" + str(k)): plain(i) for k, i in v.items()}
    if isinstance(v, str): return "s" + v
    if isinstance(v, float): return "f" + repr(v)
    if isinstance(v, int): return "i" + str(v)
    raise ValueError("not ours")
def value(s):
    try:
        v = ast.literal_eval(s)
    except (ValueError, SyntaxError):
        return "s" + s
    except Exception:
        return {"skip": True}
    try:
        return plain(v)
    except ValueError:
        return {"skip": True}
print(json.dumps([value(s) for s in json.load(sys.stdin)]))
`
	questions := sentences(6000, []string{
		"1", "0", "7", "_", ".", "e5", "E-3", "0x1f", "0o7", "0b1", "-", "+", "True", "False", "None", "x", "é",
		"'a'", `"b"`, `'\n'`, `'\x41'`, `'\u00e9'`, `'\q'`, `r'\n'`, "u'", "'", `"`, "[", "]", "(", ")", "{", "}", ",", ":", " ", "\t", "#", "'k'", "''", `"""t"""`,
	})
	questions = append(questions, "01", "1_0", "1__0", "1_", "1.5.2", "1e999", "-0", "00", "0_0", "1 2", "yes", "a=b", "[1,2", "{'a':1,}", "(,)", "{,}", "'a' 'b'", "[1]\t#x", "1,", "1,2,", ",1", "10.0.0.1", "0xg", strings.Repeat("[", 80)+strings.Repeat("]", 80))
	var answers []any
	askPython(t, program, questions, &answers)
	for i, question := range questions {
		if skip, ok := answers[i].(map[string]any); ok && skip["skip"] == true {
			continue // bytes, sets, complex numbers and the like
		}
		if got := tagged(literal(question)); !reflect.DeepEqual(answers[i], got) {
			t.Errorf("%q: Python says %q, mi-lb %q", question, answers[i], got)
		}
	}
}

// tagged writes a value so that JSON keeps its type.
func tagged(value any) any {
	switch v := value.(type) {
	case []any:
		items := make([]any, len(v))
		for i := range v {
			items[i] = tagged(v[i])
		}
		return items
	case map[string]any:
		items := map[string]any{}
		for key := range v {
			items["k"+key] = tagged(v[key])
		}
		return items
	case string:
		return "s" + v
	case float64:
		return "f" + formatFloat(v)
	case bool, nil:
		return v
	}
	text, _ := Text(value)
	return "i" + text
}

func TestLinesAreSplitAsPythonSplitsThem(t *testing.T) {
	const program = `
import json, shlex, sys
def split(s):
    try:
        return shlex.split(s, comments=True)
    except ValueError:
        return None
print(json.dumps([split(s) for s in json.load(sys.stdin)]))
`
	questions := sentences(6000, []string{"a", "=", " ", "\t", "'", `"`, `\`, "#", "b c", `'x y'`, `"x y"`, `\"`, `\\`, "é"})
	var answers [][]string
	askPython(t, program, questions, &answers)
	for i, question := range questions {
		got, err := words(question, true)
		if err != nil {
			got = nil
		} else if got == nil {
			got = []string{}
		}
		if !reflect.DeepEqual(answers[i], got) {
			t.Errorf("%q: Python says %q, mi-lb %q", question, answers[i], got)
		}
	}
}
