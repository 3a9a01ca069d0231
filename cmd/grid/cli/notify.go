package cli

import "net"

// tellManager tells systemd how the service is, if it is one of Type=notify; see sd_notify(3). What cannot be told is not worth an
// end: systemd says itself that it has not heard.
func (e *env) tellManager(state string) {
	socket, _ := e.lookupEnv("NOTIFY_SOCKET")
	if socket == "" || socket[0] != '/' && socket[0] != '@' { // @: in the abstract namespace, as package net writes it, too
		return
	}
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}
