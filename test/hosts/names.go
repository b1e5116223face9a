package hosts

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// Outside is a name that the machines' DNS server knows; its address is the
// gateway's. Other names do not exist.
const Outside = "outside.test"

// names is the DNS server that machines are told of, like that of a provider.
type names struct {
	conn    net.PacketConn
	address netip.Addr
}

// startNames serves at port 53 of an address until it is closed.
func startNames(address netip.Addr) (*names, error) {
	conn, err := net.ListenPacket("udp", netip.AddrPortFrom(address, 53).String())
	if err != nil {
		return nil, fmt.Errorf("start the machines' DNS server: %w", err)
	}
	n := &names{conn, address}
	go n.serve()
	return n, nil
}

func (n *names) close() { _ = n.conn.Close() }

func (n *names) serve() {
	buffer := make([]byte, 4096)
	for {
		size, from, err := n.conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		if answer, err := n.answer(buffer[:size]); err == nil {
			_, _ = n.conn.WriteTo(answer, from)
		}
	}
}

func (n *names) answer(query []byte) ([]byte, error) {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil {
		return nil, err
	}
	question, err := parser.Question()
	if err != nil {
		return nil, err
	}
	known := strings.EqualFold(question.Name.String(), Outside+".")
	message := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{question},
	}
	switch {
	case !known:
		message.RCode = dnsmessage.RCodeNameError
	case question.Type == dnsmessage.TypeA:
		message.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 1},
			Body:   &dnsmessage.AResource{A: n.address.As4()},
		}}
	}
	return message.Pack()
}
