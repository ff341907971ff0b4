# What peers say to each other; docs/PROTOCOL.md is the text to it. Rows never stand in here: they travel in a
# frame of their own. Fields are only ever added, with the next number.
@0xd4f2b1c6a5e80937;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("caravan::wire");

struct Rows {
  codec @0 :UInt8;  # CodecId
  width @1 :UInt32;  # values of a row
  count @2 :UInt32;
}

struct Hello {
  protocol @0 :UInt32;
  name @1 :Text;
  build @2 :Text;
  numericsClass @3 :Text;
  model @4 :Data;  # 32 bytes
  layers @5 :UInt32;
  incarnation @6 :UInt64;
  memoryBytes @7 :UInt64;
  layerNs @8 :UInt64;
  threads @9 :UInt32;
  endpoints @10 :List(Text);
  fetches @11 :Bool;
  weights @12 :Data;  # 32 bytes, or none
}

struct Welcome {
  protocol @0 :UInt32;
  ring @1 :Data;  # 16 bytes
  name @2 :Text;
  heartbeatMs @3 :UInt32;
  peerTimeoutMs @4 :UInt32;
}

struct Refuse {
  reason @0 :Text;
}

struct Heartbeat {
  sentNs @0 :UInt64;
  echoNs @1 :UInt64;
  kvBlocks @2 :UInt64;
  kvBlocksFree @3 :UInt64;
  openSequences @4 :UInt32;
  queuedSteps @5 :UInt32;
  epoch @6 :UInt64;
  lastStep @7 :UInt64;
  fetchedBytes @8 :UInt64;
  fetchBytes @9 :UInt64;
}

struct Goodbye {
  reason @0 :Text;
}

struct RouteStage {
  peer @0 :Data;  # 32 bytes
  name @1 :Text;
  numericsClass @2 :Text;
  endpoints @3 :List(Text);
  first @4 :UInt32;
  last @5 :UInt32;
  weights @6 :Data;  # 32 bytes, or none
}

struct Assign {
  ring @0 :Data;  # 16 bytes
  epoch @1 :UInt64;
  model @2 :Data;  # 32 bytes
  stage @3 :UInt32;
  route @4 :List(RouteStage);
  codec @5 :UInt8;
  kvType @6 :UInt8;
  context @7 :UInt32;
  maxSequences @8 :UInt32;
  maxRows @9 :UInt32;
  weights @10 :Data;  # 32 bytes, or none
}

struct Contract {
  ring @0 :Data;  # 16 bytes
  epoch @1 :UInt64;
  edge @2 :UInt32;
  toHead @3 :Bool;
  hash @4 :Data;  # 32 bytes
  matched @5 :Bool;
}

struct Ready {
  ring @0 :Data;  # 16 bytes
  epoch @1 :UInt64;
  kvBlocks @2 :UInt64;
  tokenNs @3 :List(UInt64);  # expected, of a generated token at 9 places of the context; or none
  promptNs @4 :List(UInt64);  # expected, of a step with 1, 2, 4 ... 512 rows of a prompt; or none
  archiveBlocks @5 :UInt64;
  archiveBlocksADay @6 :UInt64;
  archiveBlocksToday @7 :UInt64;
}

struct ArchiveLimit {
  ring @0 :Data;  # 16 bytes
  epoch @1 :UInt64;
  blocks @2 :UInt64;
  blocksADay @3 :UInt64;
  blocksToday @4 :UInt64;
}

struct NotReady {
  ring @0 :Data;  # 16 bytes
  epoch @1 :UInt64;
  edge @2 :UInt32;
  reason @3 :Text;
}

struct Release {
  ring @0 :Data;  # 16 bytes
  epoch @1 :UInt64;
  reason @2 :Text;
}

struct SequenceOperation {
  kind @0 :UInt8;
  sequence @1 :UInt64;
  number @2 :UInt64;
  source @3 :UInt64;
  positions @4 :UInt32;
}

struct RowRange {
  sequence @0 :UInt64;
  number @1 :UInt64;
  firstPosition @2 :UInt32;
  count @3 :UInt32;
  kernelClass @4 :UInt8;
  answer @5 :UInt8;
  answerCount @6 :UInt32;
}

struct StageCounters {
  stage @0 :UInt32;
  rows @1 :UInt32;
  computeNs @2 :UInt64;
  queueNs @3 :UInt64;
  bytesIn @4 :UInt64;
  bytesOut @5 :UInt64;
}

struct Step {
  ring @0 :Data;  # 16 bytes
  epoch @1 :UInt64;
  step @2 :UInt64;
  canary @3 :Bool;
  operations @4 :List(SequenceOperation);
  ranges @5 :List(RowRange);
  rows @6 :Rows;
  counters @7 :List(StageCounters);
  lost @8 :List(UInt64);  # sequences
  lostReason @9 :Text;
  tags @10 :Data;  # 16 bytes each
  loadTags @11 :Data;  # 16 bytes each
}

struct ArchiveProbe {
  ring @0 :Data;  # 16 bytes
  epoch @1 :UInt64;
  probe @2 :UInt64;
  toHead @3 :Bool;
  tags @4 :Data;  # 16 bytes each
  blocks @5 :UInt32;
  loadNs @6 :UInt64;
}

struct Answer {
  ring @0 :Data;  # 16 bytes
  epoch @1 :UInt64;
  step @2 :UInt64;
  canary @3 :Bool;
  rows @4 :Rows;
  counters @5 :List(StageCounters);
  lost @6 :List(UInt64);  # sequences
  lostReason @7 :Text;
}

struct StepFailed {
  ring @0 :Data;  # 16 bytes
  epoch @1 :UInt64;
  step @2 :UInt64;
  stage @3 :UInt32;
  reason @4 :Text;
}

struct ManifestRequest {
}

struct ManifestInfo {
  model @0 :Data;  # 32 bytes
  record @1 :Data;  # 32 bytes
  recordBytes @2 :UInt64;
  hashedBytes @3 :UInt64;
  totalBytes @4 :UInt64;
  reason @5 :Text;
}

struct ShardRequest {
  group @0 :Data;  # 32 bytes
  offset @1 :UInt64;
  length @2 :UInt32;
}

struct ShardBytes {
  group @0 :Data;  # 32 bytes
  offset @1 :UInt64;
  length @2 :UInt32;
}

struct ShardRefused {
  group @0 :Data;  # 32 bytes
  offset @1 :UInt64;
  reason @2 :Text;
}

struct Fetch {
  ring @0 :Data;  # 16 bytes
  plan @1 :UInt64;
  first @2 :UInt32;
  last @3 :UInt32;
}

struct Fetched {
  ring @0 :Data;  # 16 bytes
  plan @1 :UInt64;
  reason @2 :Text;
}

struct Message {
  version @0 :UInt32;
  union {
    none @1 :Void;  # what a message of nothing but zeros says: refused
    hello @2 :Hello;
    welcome @3 :Welcome;
    refuse @4 :Refuse;
    heartbeat @5 :Heartbeat;
    goodbye @6 :Goodbye;
    assign @7 :Assign;
    contract @8 :Contract;
    ready @9 :Ready;
    notReady @10 :NotReady;
    release @11 :Release;
    step @12 :Step;
    answer @13 :Answer;
    stepFailed @14 :StepFailed;
    manifestRequest @15 :ManifestRequest;
    manifestInfo @16 :ManifestInfo;
    shardRequest @17 :ShardRequest;
    shardBytes @18 :ShardBytes;
    shardRefused @19 :ShardRefused;
    fetch @20 :Fetch;
    fetched @21 :Fetched;
    archiveProbe @22 :ArchiveProbe;
    archiveLimit @23 :ArchiveLimit;
  }
}
