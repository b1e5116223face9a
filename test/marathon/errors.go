package marathon

import (
	"encoding/json"
	"fmt"
)

// apiError is an answer with Marathon's own status and message.
type apiError struct {
	status int
	body   json.RawMessage
}

func (e *apiError) Error() string { return fmt.Sprintf("%d: %s", e.status, e.body) }

func message(status int, format string, args ...any) *apiError {
	return &apiError{status: status, body: object("message", fmt.Sprintf(format, args...))}
}

func unknownApp(id string) *apiError   { return message(404, "App '%s' does not exist", id) }
func unknownGroup(id string) *apiError { return message(404, "Group '%s' does not exist", id) }

// invalid is what a document with one unacceptable value gets.
func invalid(path, format string, args ...any) *apiError {
	var v violations
	v.add(path, format, args...)
	return v.error()
}

// violations collects what a document is refused for.
type violations struct {
	paths  []string
	errors map[string][]string
}

func (v *violations) add(path, format string, args ...any) {
	if v.errors == nil {
		v.errors = map[string][]string{}
	}
	if _, known := v.errors[path]; !known {
		v.paths = append(v.paths, path)
	}
	v.errors[path] = append(v.errors[path], fmt.Sprintf(format, args...))
}

// error is nil without violations.
func (v *violations) error() *apiError {
	if len(v.paths) == 0 {
		return nil
	}
	details := []any{}
	for _, path := range v.paths {
		details = append(details, object("path", path, "errors", v.errors[path]))
	}
	return &apiError{status: 422, body: object("message", "Object is not valid", "details", details)}
}

// locked is what a change gets while deployments have the app.
func locked(deployments []string) *apiError {
	ids := []any{}
	for _, id := range deployments {
		ids = append(ids, map[string]string{"id": id})
	}
	return &apiError{status: 409, body: object(
		"message", "App is locked by one or more deployments. Override with the option '?force=true'. "+
			"View details at '/v2/deployments/<DEPLOYMENT_ID>'.",
		"deployments", ids)}
}
