// Package guestnet lets guests send HTTP requests, to places that they were granted and nowhere else.
// A guest calls a host function (see [Functions]; docs/abi.md specifies it under "Network"); it has no
// sockets, sees no names being resolved, and cannot listen.
//
// # What is checked
//
// Every request passes these in turn, and there is no other way out:
//
//  1. The request is well-formed: http or https, one of seven methods, no user in the URL, no header that
//     is the connection's own business, and no byte with which one request could be made to look like two.
//  2. A grant names the URL's host and port ([grid.NetGrant]). A URL with an address needs a grant with
//     addresses, a URL with a name one with names.
//  3. The name is resolved, once. If one of its addresses may not be reached, none is: an answer that mixes
//     public and private addresses is a mistake or an attack, and which of them would be used is luck.
//  4. The connection goes to an address that was checked, and not to a name. So a name that resolves to
//     something else a moment later (DNS rebinding) gains nothing.
//  5. With https the certificate must be valid for the URL's host.
//
// Redirects are not followed but handed to the guest, whose next request is checked like any other.
// Proxies from the environment are not used, and nothing is kept from one guest to the next: no
// connections, cookies or sessions.
//
// # Which addresses may be reached
//
// Public ones: global unicast addresses that no registry sets aside (see [IsPublic]) and that are not the
// node's own. The node's policy says whether there is more: under [Named] a grant of an address or a
// range opens what it names, and a grant of "localhost" the loopback addresses. No grant of another name
// ever opens an address that is not public, for whoever runs that name's DNS could say any; a name of the
// local network needs a grant of its addresses besides. Link-local addresses and those of cloud metadata
// services must be named one by one, not by a range. Unspecified, multicast and broadcast addresses,
// and tunnels to IPv4, are never reached.
//
// # What it costs the host
//
// All is bounded by [Limits]: the requests of a guest, how many responses it has open, the bytes
// of one request and one response and of all together, how long one takes. Requests are
// HTTP/1.1 and made in the guest's own goroutine, which waits; when its context ends, so does the
// wait. A guest may keep a few connections idle for its own next requests of methods that may be sent twice;
// a POST or PATCH has a connection to itself, since that the server has closed an idle one shows only when
// it is used. [State.Reset] closes all that is left, and there are no goroutines to wait for.
package guestnet
