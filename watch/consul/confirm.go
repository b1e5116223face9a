package consul

import "time"

// doubt is why an answer is not taken at its word about what is missing from
// it. What it does contain is believed in any case.
type doubt string

const (
	noDoubt       doubt = ""
	afterStart    doubt = "first answer after a start"
	afterError    doubt = "first answer after an error"
	afterReset    doubt = "the catalog's index went backwards"
	afterNewToken doubt = "first answer with a new token"
	filtered      doubt = "answer filtered by ACLs"
	leaderless    doubt = "answer of a server without a leader"
)

// Confirmation says how long an absence that was first seen in a doubtful answer
// must stand, in unbroken contact, until it is believed.
//
// The rule: an instance that is missing from an answer is gone at once if that
// answer follows an earlier good one without a break. After a break (a start, an
// error, an index that went backwards, a new token), in an answer filtered by
// ACLs, and in one of a server without a leader, it is held as it was last
// seen, until it comes back, until another instance is seen at its address, or
// until it has been missing for Some; for Most if more than half of the
// datacenter's instances are missing, since then it is likelier that Consul lost
// them than that they left. Every further break starts the time again.
type Confirmation struct {
	// Some is one minute where it is 0: agents of a small cluster register what
	// they have anew within that time.
	Some time.Duration
	// Most is ten minutes where it is 0.
	Most time.Duration
}

func (c Confirmation) withDefaults() Confirmation {
	if c.Some == 0 {
		c.Some = time.Minute
	}
	if c.Most == 0 {
		c.Most = 10 * time.Minute
	}
	return c
}

// gone says whether an instance that is missing for that reason, and has been
// for so long, is to be dropped. Of known instances, which include the missing
// ones, so many are missing.
func (c Confirmation) gone(why doubt, known, missing int, stood time.Duration) bool {
	switch {
	case why == noDoubt:
		return true
	case missing*2 > known:
		return stood >= c.Most
	default:
		return stood >= c.Some
	}
}
