package config

import (
	"reflect"
	"strings"
	"time"
)

// Key is one setting, as it is written in the file, on the command line and in the
// environment.
type Key struct {
	// Path is "consul.address".
	Path    string
	Help    string
	Default any
	// Type is the field's.
	Type reflect.Type
}

// Env is the environment variable of the key: "MI_LB_CONSUL_ADDRESS".
func (k Key) Env() string {
	return EnvPrefix + "_" + strings.ToUpper(strings.ReplaceAll(k.Path, ".", "_"))
}

// EnvPrefix begins all of mi-lb's environment variables.
const EnvPrefix = "MI_LB"

// Keys are all of a configuration, in the order of the reference. The keys of one
// Marathon cluster are not among them: see MarathonKeys.
func Keys() []Key { return keysOf(reflect.ValueOf(Default()), "") }

// MarathonKeys are those of one element of "marathon".
func MarathonKeys() []Key { return keysOf(reflect.ValueOf(Marathon{}), "") }

func keysOf(value reflect.Value, prefix string) []Key {
	var keys []Key
	for i := range value.NumField() {
		field := value.Type().Field(i)
		path := prefix + field.Tag.Get("key")
		if field.Type.Kind() == reflect.Struct {
			keys = append(keys, keysOf(value.Field(i), path+".")...)
			continue
		}
		keys = append(keys, Key{Path: path, Help: field.Tag.Get("help"), Default: value.Field(i).Interface(), Type: field.Type})
	}
	return keys
}

// Differences are the keys in which the two configurations differ.
func Differences(a, b Config) []string {
	return differences(reflect.ValueOf(a), reflect.ValueOf(b), "")
}

func differences(a, b reflect.Value, prefix string) []string {
	var keys []string
	for i := range a.NumField() {
		field := a.Type().Field(i)
		path := prefix + field.Tag.Get("key")
		switch {
		case field.Type.Kind() == reflect.Struct:
			keys = append(keys, differences(a.Field(i), b.Field(i), path+".")...)
		case field.Type.Kind() == reflect.Slice && a.Field(i).Len() == 0 && b.Field(i).Len() == 0:
		case !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()):
			keys = append(keys, path)
		}
	}
	return keys
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	stringsType  = reflect.TypeFor[[]string]()
	marathonType = reflect.TypeFor[[]Marathon]()
)
