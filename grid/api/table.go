package api

import (
	"reflect"

	"github.com/wasmgrid/wasmgrid/grid"
)

// route is what is known of one route, apart from who answers it: from the table of them come what is served, who may use it,
// which room it waits for, and the OpenAPI document.
//
// No route takes the name of a file of the node's machine: what is sent in comes in the request.
type route struct {
	pattern string         // METHOD PATH, as in http.ServeMux; the path without the prefix of the version
	does    string         // in a few words
	role    grid.TokenRole // that a token must have at least; nobody may use over the network what has none
	room    roomKind
	own     bool // who is no admin may do it only to jobs that run for him
	once    bool // it makes something new: with a key in its header it is done once, however often it is sent
	query   []param
	in      body // of the request; the zero value: none
	out     body // of a good answer
	ranged  bool // a part of it can be asked for
	pages   bool // it is a list that has pages, see pageParams
	resumes bool // its events have ids, see stream
}

// roomKind says what a request has in common with those that wait for the same room.
type roomKind uint8

const (
	quick  roomKind = iota // asks or says one thing
	bulk                   // moves or goes through data
	follow                 // stays until something ends
)

// param is a parameter in the query of a request.
type param struct {
	name string
	kind paramKind
	need bool
	does string
}

type paramKind string

const (
	stringParam  paramKind = "string"
	integerParam paramKind = "integer" // at least 0
	flagParam    paramKind = "flag"    // set if it is there and not empty
	timeParam    paramKind = "time"    // of RFC 3339
	dateParam    paramKind = "date"    // such as 2006-01-02
)

// body is what a request or an answer holds.
type body struct {
	media string
	also  string       // another media type that it may have: of events, or of bytes
	of    reflect.Type // of its JSON; nil: it is bytes
	may   bool         // it may be left out
}

func as[T any]() body { return body{media: jsonType, of: reflect.TypeFor[T]()} }

// lined is one JSON value a line, or for who accepts that, in each server-sent event.
func lined[T any]() body { return body{media: linesType, also: eventsType, of: reflect.TypeFor[T]()} }

// perhaps is a body that may be left out.
func perhaps(b body) body {
	b.may = true
	return b
}

// orBytes is a body that may be bytes instead.
func orBytes(b body) body {
	b.also = bytesType
	return b
}

func binary(media string) body { return body{media: media} }

// Media types.
const (
	bytesType   = "application/octet-stream"
	textType    = "text/plain"
	jsonType    = "application/json"
	linesType   = "application/x-ndjson"
	eventsType  = "text/event-stream"
	problemType = "application/problem+json"
)

// outside are patterns that do not lie below the prefix of the version.
var outside = map[string]bool{"GET " + metricsPath: true, gatewayPrefix + "/": true, "/": true}

// table is every route that there is.
var table = []route{
	{pattern: "GET /openapi.json", does: "this interface as an OpenAPI document", role: grid.TokenViewer, out: as[map[string]any]()},
	{pattern: "GET /access", does: "what whoever asks may do", role: grid.TokenViewer, out: as[Access]()},
	{pattern: "GET /node", does: "how the node is", role: grid.TokenViewer, out: as[grid.NodeStatus]()},
	{pattern: "GET /node/log", resumes: true, does: "the last records of the node's own log", role: grid.TokenViewer, room: follow,
		query: []param{{name: "level", kind: stringParam, does: "of this level and above"}, {name: "room", kind: stringParam, does: "of this part of the node"}, {name: "since", kind: timeParam, does: "since then"}, {name: "grep", kind: stringParam, does: "with this pattern, in RE2's syntax"}, {name: "limit", kind: integerParam, does: "the last so many"}, {name: "follow", kind: flagParam, does: "stay for those to come"}},
		out:   lined[grid.LogRecord]()},
	{pattern: "GET /node/log-levels", does: "from which level on the node logs, by room", role: grid.TokenViewer, out: as[grid.LogLevels]()},
	{pattern: "PUT /node/log-levels", does: "changes that, for the rooms that are named", role: grid.TokenAdmin, in: as[grid.LogLevels](), out: as[grid.LogLevels]()},
	{pattern: "POST /shutdown", does: "begins an orderly stop of the node", role: grid.TokenAdmin, out: as[struct{}]()},
	{pattern: "GET /peers", does: "nodes that are connected", role: grid.TokenViewer, out: as[[]grid.PeerInfo]()},
	{pattern: "GET /debug/pprof/{name}", does: "a profile of the node, for go tool pprof, or of the kind trace for go tool trace; one of a stretch of time at a time", role: grid.TokenAdmin, room: follow,
		query: []param{{name: "seconds", kind: integerParam, does: "for so long: cpu, block, mutex, trace"}, {name: "text", kind: flagParam, does: "as text: goroutine"}},
		out:   body{media: bytesType, also: textType}},
	{pattern: "POST /bench", does: "measures the node beside what its machine can do, one thing a line", role: grid.TokenAdmin, room: follow,
		query: []param{{name: "quick", kind: flagParam, does: "in some five seconds"}},
		out:   lined[grid.Measured]()},
	{pattern: "GET /checkup", does: "what tells whether all is well with the node; it asks others in turn", role: grid.TokenViewer, out: as[grid.Checkup]()},
	{pattern: "GET /refusals", does: "what peers, and users of the API over the network, were refused since the node was started, the most frequent first", role: grid.TokenViewer, out: as[[]grid.Refusal]()},
	{pattern: "GET /nodes", does: "how each node of the realm is, as it says itself, in one list; who follows is given more of them, of nodes of which something was heard since", role: grid.TokenViewer, room: follow,
		query: []param{{name: "follow", kind: flagParam, does: "stay"}, {name: "every", kind: integerParam, does: "so many seconds between two lists, 1 to 60"}},
		out:   lined[[]grid.Pulse]()},
	{pattern: "GET /stretches", does: "what worker slots of the realm ran, by time", role: grid.TokenViewer, room: follow,
		query: []param{
			{name: "since", kind: timeParam, does: "what ended after this time"}, {name: "until", kind: timeParam, does: "what began before this time"},
			{name: "node", kind: stringParam, does: "on this node"}, {name: "job", kind: stringParam, does: "for this job"},
			{name: "resolution", kind: integerParam, does: "leave out gaps of so many milliseconds"}, {name: "limit", kind: integerParam, does: "so many at most, for which it is made coarser (default 5000, most 50000)"},
			{name: "follow", kind: flagParam, does: "go on with what ends"}},
		out: lined[grid.Stretch]()},
	{pattern: "GET /events", resumes: true, does: "what has happened in the realm, the oldest first", role: grid.TokenViewer, room: follow,
		query: []param{
			{name: "since", kind: timeParam, does: "after this time"}, {name: "job", kind: stringParam, does: "to this job, even if it has ended"}, {name: "room", kind: stringParam, does: "of job, node, ledger, data or swarm"},
			{name: "follow", kind: flagParam, does: "stay; of a job, until it ends"}},
		out: lined[grid.RealmEvent]()},
	{pattern: "GET /audit", does: "the realm's audit log, a line for each entry", role: grid.TokenViewer,
		query: []param{{name: "since", kind: timeParam, does: "leave out what was sealed before this time, as RFC 3339 has it"}},
		out:   body{media: linesType, of: reflect.TypeFor[grid.AuditLine]()}},

	{pattern: "POST /add", does: "stores a tar archive: an entry a line, the last line is the folder that holds them all", role: grid.TokenSubmitter, room: bulk, in: binary("application/x-tar"), out: lined[grid.FileInfo]()},
	{pattern: "POST /have", does: "tells of which files and folders not all is on the node", role: grid.TokenViewer, in: as[wanted](), out: as[missing]()},
	{pattern: "GET /stat/{cid}/{path...}", does: "what a file or folder is", role: grid.TokenViewer, out: as[grid.FileInfo]()},
	{pattern: "GET /ls/{cid}/{path...}", pages: true, does: "the entries of a folder, by name", role: grid.TokenViewer, out: as[[]grid.FileInfo]()},
	{pattern: "GET /cat/{cid}/{path...}", does: "the bytes of a file; honours Range", role: grid.TokenViewer, room: bulk, out: binary(bytesType), ranged: true},
	{pattern: "GET /tar/{cid}/{path...}", does: "a file or folder as a tar archive", role: grid.TokenViewer, room: bulk, out: binary("application/x-tar")},
	{pattern: "GET /car/{cid}/{path...}", does: "the DAG of a file or folder as a CARv1", role: grid.TokenViewer, room: bulk, out: binary(carName)},
	{pattern: "POST /car", does: "stores the blocks of a CARv1 or CARv2", role: grid.TokenSubmitter, room: bulk,
		query: []param{{name: "partial", kind: flagParam, does: "accept roots that are not whole"}},
		in:    binary(carName), out: as[grid.Imported]()},
	{pattern: "GET /survey/{cid}/{path...}", does: "how much of a DAG is on the node", role: grid.TokenViewer, room: bulk, out: as[grid.Extent]()},
	{pattern: "GET /diff", does: "what differs between two files or folders, a path a line", role: grid.TokenViewer, room: bulk,
		query: []param{{name: "was", kind: stringParam, need: true, does: "CID/PATH"}, {name: "is", kind: stringParam, need: true, does: "CID/PATH"}},
		out:   lined[grid.Change]()},
	{pattern: "GET /modules/{cid}", does: "what a module is, and how the node runs it", role: grid.TokenSubmitter,
		query: []param{{name: "early", kind: flagParam, does: "do not wait until it is compiled"}},
		out:   as[grid.Module]()},

	{pattern: "POST /pins", once: true, does: "keeps a DAG, which is fetched first if it is not here", role: grid.TokenSubmitter, in: as[grid.Pin](), out: as[grid.PinStatus]()},
	{pattern: "GET /pins", pages: true, does: "the pins that the node knows, the oldest first", role: grid.TokenViewer, out: as[[]grid.PinStatus]()},
	{pattern: "GET /pins/{cid}", does: "how a pin stands with all nodes concerned", role: grid.TokenViewer,
		query: []param{{name: "deep", kind: flagParam, does: "have them look for every block"}},
		out:   as[grid.PinStatus]()},
	{pattern: "DELETE /pins/{cid}", does: "keeps it no longer", role: grid.TokenSubmitter, out: as[struct{}]()},
	{pattern: "GET /drain", does: "how far the node is with handing on what it keeps", role: grid.TokenViewer, out: as[grid.DrainStatus]()},
	{pattern: "POST /drain", does: "has the node hand on what it keeps, or ends that", role: grid.TokenAdmin, in: as[drainRequest](), out: as[struct{}]()},
	{pattern: "GET /store", does: "what the block store holds", role: grid.TokenViewer, out: as[grid.StoreUse]()},
	{pattern: "POST /store/gc", does: "deletes what nothing keeps", role: grid.TokenAdmin, room: bulk,
		query: []param{{name: "dry_run", kind: flagParam, does: "only count"}},
		out:   as[grid.Collected]()},
	{pattern: "POST /store/verify", does: "reads all blocks", role: grid.TokenAdmin, room: bulk,
		query: []param{{name: "repair", kind: flagParam, does: "fetch those that are damaged again"}},
		out:   as[grid.Verified]()},

	{pattern: "GET /backup", does: "what the realm knows, as a file", role: grid.TokenAdmin, room: bulk,
		query: []param{{name: "data", kind: flagParam, does: "with data"}, {name: "partial", kind: flagParam, does: "without what is not to be had"}},
		out:   binary(backupType)},
	{pattern: "POST /restore", does: "takes in such a file", role: grid.TokenAdmin, room: bulk,
		query: []param{{name: "merge", kind: flagParam, does: "into a realm that is in use"}},
		in:    binary(backupType), out: as[grid.Restored]()},

	{pattern: "POST /jobs", once: true, does: "starts a job", role: grid.TokenSubmitter, in: as[grid.Request](), out: as[submitted]()},
	{pattern: "GET /jobs", pages: true, does: "the jobs that the node knows, the newest first", role: grid.TokenViewer,
		query: []param{{name: "state", kind: stringParam, does: "those in this state"}, {name: "find", kind: stringParam, does: "those that have this in their ID, name or user"}},
		out:   as[[]grid.JobStatus]()},
	{pattern: "GET /jobs/{id}", does: "how a job stands", role: grid.TokenViewer, out: as[grid.JobStatus]()},
	{pattern: "GET /jobs/{id}/request", does: "what a job was submitted with; submitted once more, it does the same", role: grid.TokenViewer, out: as[grid.Request]()},
	{pattern: "POST /jobs/{id}/cancel", does: "ends a job; who is no admin may end his own", role: grid.TokenSubmitter, own: true, out: as[struct{}]()},
	{pattern: "DELETE /jobs/{id}", does: "forgets a job that has ended; who is no admin may his own", role: grid.TokenSubmitter, own: true, out: as[submitted]()},
	{pattern: "POST /jobs/{id}/verify", does: "runs tasks of a job that has ended again, a line for each", role: grid.TokenSubmitter, room: follow,
		query: []param{{name: "stage", kind: integerParam, does: "those of this stage"}, {name: "task", kind: integerParam, does: "this one"}, {name: "sample", kind: integerParam, does: "so many of them, by chance"}},
		out:   lined[grid.Rechecked]()},
	{pattern: "GET /jobs/{id}/watch", does: "how a job stands whenever that changes, until it has ended", role: grid.TokenViewer, room: follow, out: lined[grid.JobStatus]()},
	{pattern: "GET /jobs/{id}/why", does: "why a job stands as it does", role: grid.TokenViewer, out: as[grid.Explanation]()},
	{pattern: "GET /jobs/{id}/tasks", does: "tasks of a job that have ended, in that order", role: grid.TokenViewer, room: follow,
		query: []param{{name: "follow", kind: flagParam, does: "stay until the job ends"}},
		out:   lined[grid.TaskEnd]()},
	{pattern: "GET /jobs/{id}/logs", resumes: true, does: "lines that a job's tasks printed, also of those that run", role: grid.TokenViewer, room: follow,
		query: []param{{name: "stage", kind: integerParam, does: "of this stage"}, {name: "task", kind: integerParam, does: "of the task with this number"}, {name: "node", kind: stringParam, does: "of those that ran on this node"}, {name: "stream", kind: stringParam, does: "`stdout` or `stderr` alone"}, {name: "since", kind: timeParam, does: "printed since then"}, {name: "grep", kind: stringParam, does: "lines with this pattern, in RE2's syntax"}, {name: "limit", kind: integerParam, does: "so many at most"}, {name: "follow", kind: flagParam, does: "stay until the job ends"}},
		out:   lined[grid.LogLine]()},
	{pattern: "GET /jobs/{id}/usage", does: "what a job has used, worked out anew from its receipts", role: grid.TokenViewer, room: bulk, out: as[grid.UsageCheck]()},
	{pattern: "POST /call", does: "runs a job of one task and waits for its end; who hangs up ends it", role: grid.TokenSubmitter, in: as[Call](), out: as[CallEnd]()},

	{pattern: "GET /usage", does: "what was used, by whom; who has used most comes first", role: grid.TokenViewer,
		query: []param{{name: "by", kind: stringParam, does: "user, node, job or the like"}, {name: "since", kind: dateParam, does: "since this day"}},
		out:   as[[]grid.Used]()},
	{pattern: "GET /quotas", does: "the quotas of the realm, and how they stand", role: grid.TokenViewer,
		query: []param{{name: "subject", kind: stringParam, does: "those that this one is under"}},
		out:   as[[]grid.QuotaStatus]()},
	{pattern: "PUT /quotas", does: "sets a quota", role: grid.TokenAdmin, in: as[grid.Allowance](), out: as[grid.Allowance]()},
	{pattern: "DELETE /quotas", does: "removes a quota", role: grid.TokenAdmin,
		query: []param{{name: "subject", kind: stringParam, need: true, does: "whose"}, {name: "per", kind: stringParam, does: "for which time"}},
		out:   as[struct{}]()},

	{pattern: "GET /kv", does: "a page of the user's keys, in order", role: grid.TokenViewer,
		query: []param{{name: "prefix", kind: stringParam, does: "those that begin with it"}, {name: "after", kind: stringParam, does: "those behind this key"}, {name: "limit", kind: integerParam, does: "so many at most"}, {name: "at", kind: integerParam, does: "as they were at this revision"}, {name: "keys", kind: flagParam, does: "without values"}, {name: "stale", kind: flagParam, does: "may be out of date"}},
		out:   as[KVPage]()},
	{pattern: "GET /kv/entry", does: "one key; with raw its bytes alone, and its version as ETag", role: grid.TokenViewer,
		query: []param{{name: "key", kind: stringParam, need: true, does: "which"}, {name: "raw", kind: flagParam, does: "the bytes alone"}, {name: "stale", kind: flagParam, does: "may be out of date"}},
		out:   orBytes(as[KV]())},
	{pattern: "PUT /kv/entry", does: "sets a key to what the body holds", role: grid.TokenSubmitter,
		query: []param{{name: "key", kind: stringParam, need: true, does: "which"}, {name: "if_version", kind: integerParam, does: "only if it has this version"}, {name: "if_absent", kind: flagParam, does: "only if there is none"}},
		in:    binary(bytesType), out: as[revised]()},
	{pattern: "DELETE /kv/entry", does: "removes a key", role: grid.TokenSubmitter,
		query: []param{{name: "key", kind: stringParam, need: true, does: "which"}, {name: "if_version", kind: integerParam, does: "only if it has this version"}},
		out:   as[revised]()},
	{pattern: "POST /kv/txn", does: "changes keys if conditions hold: all of it, or nothing", role: grid.TokenSubmitter, in: as[TxnDoc](), out: as[revised]()},
	{pattern: "GET /kv/watch", resumes: true, does: "changes of keys, a transaction a line, until the reader goes; the first line says behind which revision it begins", role: grid.TokenViewer, room: follow,
		query: []param{{name: "prefix", kind: stringParam, does: "of those that begin with it"}, {name: "after", kind: integerParam, does: "behind this revision"}},
		out:   lined[KVChanges]()},
	{pattern: "GET /refs", pages: true, does: "the refs, by name", role: grid.TokenViewer,
		query: []param{{name: "prefix", kind: stringParam, does: "those that begin with it"}, {name: "stale", kind: flagParam, does: "may be out of date"}},
		out:   as[[]grid.Ref]()},
	{pattern: "GET /refs/{name...}", does: "what a ref names", role: grid.TokenViewer, out: as[grid.Ref]()},
	{pattern: "PUT /refs/{name...}", does: "has a ref name a DAG", role: grid.TokenSubmitter, in: as[refRequest](), out: as[grid.Ref]()},
	{pattern: "DELETE /refs/{name...}", does: "removes a ref; the body may be left out", role: grid.TokenSubmitter, in: perhaps(as[refRequest]()), out: as[struct{}]()},
	{pattern: "GET /resolve", does: "what CID/PATH or NAME/PATH names", role: grid.TokenViewer,
		query: []param{{name: "name", kind: stringParam, need: true, does: "CID[/PATH] or NAME[/PATH], NAME being a ref"}},
		out:   as[grid.Named]()},
	{pattern: "GET /ledger", does: "how the realm's ledger is", role: grid.TokenViewer, out: as[grid.LedgerStatus]()},
	{pattern: "DELETE /ledger/members/{id}", does: "has a node belong to the realm no longer", role: grid.TokenAdmin, out: as[struct{}]()},

	{pattern: "GET /plugins", pages: true, does: "the plugins of the realm, also what was removed", role: grid.TokenViewer,
		query: []param{{name: "name", kind: stringParam, does: "versions of this one"}, {name: "stale", kind: flagParam, does: "may be out of date"}},
		out:   as[[]grid.Plugin]()},
	{pattern: "POST /plugins", once: true, does: "publishes a module under the name and version of its manifest", role: grid.TokenAdmin, in: as[pluginInstall](), out: as[grid.Plugin]()},
	{pattern: "GET /plugins/{ref}", does: "what a reference to a plugin means", role: grid.TokenViewer,
		query: []param{{name: "manifest", kind: flagParam, does: "with all that the plugin says of itself"}},
		out:   as[PluginInfo]()},
	{pattern: "DELETE /plugins/{ref}", does: "removes a version of a plugin", role: grid.TokenAdmin, out: as[grid.Plugin]()},
	{pattern: "PUT /plugin-aliases/{name}/{alias}", does: "has an alias mean a version", role: grid.TokenAdmin, in: as[pluginAlias](), out: as[grid.Plugin]()},
	{pattern: "GET /plugin-policy", does: "what the realm demands of modules", role: grid.TokenViewer, out: as[grid.PluginPolicy]()},
	{pattern: "PUT /plugin-policy", does: "changes what the realm demands of modules", role: grid.TokenAdmin, in: as[grid.PluginPolicy](), out: as[grid.PluginPolicy]()},
	{pattern: "GET /extensions", does: "plugins that extend the realm's nodes", role: grid.TokenViewer, out: as[[]grid.ExtensionStatus]()},
	{pattern: "POST /extensions", once: true, does: "has a plugin's function extend all nodes of the realm", role: grid.TokenAdmin, in: as[attaching](), out: as[grid.Extension]()},
	{pattern: "DELETE /extensions/{key...}", does: "detaches admission, scorer or notifier/NAME", role: grid.TokenAdmin, out: as[struct{}]()},

	{pattern: "GET /secrets", does: "the names of the realm's secrets; what they hold is not to be had", role: grid.TokenSubmitter, out: as[[]grid.Secret]()},
	{pattern: "PUT /secrets/{name}", does: "sets a secret to what the body holds", role: grid.TokenAdmin, in: binary(bytesType), out: as[grid.Secret]()},
	{pattern: "DELETE /secrets/{name}", does: "removes a secret", role: grid.TokenAdmin, out: as[revised]()},
	{pattern: "GET /tokens", pages: true, does: "the tokens for this API; their secrets are not to be had", role: grid.TokenAdmin, out: as[[]grid.Token]()},
	{pattern: "POST /tokens", once: true, does: "makes a token", role: grid.TokenAdmin, in: as[newToken](), out: as[CreatedToken]()},
	{pattern: "DELETE /tokens/{id}", does: "removes a token; a name will do if it is that of one only", role: grid.TokenAdmin, out: as[grid.Token]()},

	{pattern: "GET /swarm", does: "the private swarm that the node is in", role: grid.TokenViewer, out: as[grid.SwarmInfo]()},
	{pattern: "POST /swarm/invite", once: true, does: "makes an invitation to the swarm", role: grid.TokenAdmin, in: as[grid.InviteRequest](), out: as[grid.Invite]()},
	{pattern: "GET /swarm/members", pages: true, does: "who is and was a member", role: grid.TokenViewer, out: as[[]grid.SwarmMember]()},
	{pattern: "DELETE /swarm/members/{id}", does: "ends a membership; a node leaves by its own", role: grid.TokenAdmin, out: as[struct{}]()},
	{pattern: "POST /swarm/members/{id}/approve", does: "lets a node in that waits for it", role: grid.TokenAdmin, out: as[struct{}]()},
	{pattern: "PUT /swarm/members/{id}/role", does: "gives a member another role", role: grid.TokenAdmin, in: as[memberRole](), out: as[struct{}]()},
	{pattern: "POST /swarm/members/{id}/renew", does: "has a membership last from now on", role: grid.TokenAdmin, in: as[renewal](), out: as[struct{}]()},
	{pattern: "POST /swarm/rotate-key", once: true, does: "replaces the key of the swarm's authority", role: grid.TokenAdmin, in: as[rotation](), out: as[grid.KeyRotation]()},
	{pattern: "POST /swarm/leave", does: "has the node leave its realm and the swarm", role: grid.TokenAdmin, in: as[leaving](), out: as[struct{}]()},

	{pattern: "GET /metrics", does: "metrics in the text format of Prometheus", role: grid.TokenViewer, out: binary("text/plain")},
	{pattern: "/ipfs/", does: "the IPFS trustless gateway", role: grid.TokenViewer},
	{pattern: "/", does: "answers that there is no such route", role: grid.TokenViewer},
}

// routeOf finds a route by its pattern.
var routeOf = func() map[string]*route {
	m := make(map[string]*route, len(table))
	for i := range table {
		m[table[i].pattern] = &table[i]
	}
	return m
}()
