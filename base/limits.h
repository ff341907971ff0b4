#pragma once

#include <cstddef>
#include <cstdint>

// Every limit has a name here. Sizes read from a file, a socket or a user are compared with these before
// anything is allocated; relations between limits are asserted at the end.
namespace caravan::limits {

// Models.
inline constexpr uint32_t kMaxLayers = 512;
inline constexpr uint32_t kMaxWidth = 1u << 16;        // hidden size
inline constexpr uint32_t kMaxFeedForward = 1u << 18;  // feed-forward width
inline constexpr uint32_t kMaxHeads = 1024;
inline constexpr uint32_t kMaxHeadWidth = 1024;
inline constexpr uint32_t kMaxExperts = 1024;  // per layer
inline constexpr uint32_t kMaxExpertsPerToken = 64;
inline constexpr uint32_t kMaxVocabulary = 1u << 20;
inline constexpr uint32_t kMaxContext = 1u << 24;  // positions of one sequence
inline constexpr uint32_t kMaxTensors = 1u << 17;  // in one model
inline constexpr uint32_t kMaxTensorDimensions = 4;

// Files.
inline constexpr uint64_t kMaxMetadataEntries = 1u << 16;
inline constexpr uint64_t kMaxMetadataArray = 1u << 24;  // elements of one array
inline constexpr uint64_t kMaxMetadataDepth = 4;         // arrays of arrays
inline constexpr uint64_t kMaxStringBytes = 1u << 24;    // one string in a file
inline constexpr uint64_t kMaxKeyBytes = 1024;           // a metadata key or a tensor's name
inline constexpr uint64_t kMaxJsonBytes = 256ull << 20;  // config.json, tokenizer.json, safetensors headers
inline constexpr uint64_t kMaxConfigBytes = 16u << 20;   // config.json and the small files beside it
inline constexpr uint32_t kMaxJsonDepth = 64;
inline constexpr uint32_t kMaxShardFiles = 4096;

// Steps.
inline constexpr uint32_t kKvBlockPositions = 32;    // positions of one KV block
inline constexpr uint32_t kMixPiecePositions = 256;  // positions of one softmax piece (law 3)
inline constexpr uint32_t kMaxRowsPerStep = 512;
inline constexpr uint32_t kMaxRangesPerStep = 256;       // row ranges (one a sequence)
inline constexpr uint32_t kMaxOperationsPerStep = 1024;  // sequence operations
inline constexpr uint32_t kMaxStepsInFlight = 64;        // of one ring
inline constexpr uint32_t kMaxSequences = 1024;          // open on one stage
inline constexpr uint32_t kMaxCandidates = 256;          // of one answer
inline constexpr uint32_t kMaxStopStrings = 16;
inline constexpr uint32_t kMaxStopBytes = 1024;

// The wire.
inline constexpr size_t kMaxHeaderBytes = 64u << 10;           // a Cap'n Proto header
inline constexpr size_t kMaxRowBytes = size_t{4} * kMaxWidth;  // one f32 row
inline constexpr size_t kMaxFrameBytes = 160u << 20;           // encoded rows of one step
inline constexpr uint32_t kMaxPeers = 256;                     // of one ring
inline constexpr size_t kMaxEarlierCuts = 32;                  // of one model that a head remembers
inline constexpr uint32_t kMaxNameBytes = 256;                 // of a peer, ring or model
inline constexpr uint32_t kMaxQueuedMessages = 1024;           // towards one neighbour

inline constexpr uint32_t kMaxReasonBytes = 1024;        // why a peer refuses or fails
inline constexpr uint32_t kMaxEndpoints = 8;             // of one peer
inline constexpr size_t kMaxTicketBytes = 4096;          // the text of a ticket
inline constexpr size_t kMaxOpenTickets = 1024;          // of one head
inline constexpr size_t kFragmentBytes = 64u << 10;      // rows in one ZeroMQ frame
inline constexpr size_t kMaxZmqFrameBytes = 320u << 10;  // libzmq refuses more before it allocates
inline constexpr size_t kLinkWindowBytes = 8u << 20;     // sent to one neighbour and not yet taken by it
inline constexpr size_t kMaxQueuedBytes = 256u << 20;    // towards one neighbour, beyond one message

// Tokenizers and samplers.
inline constexpr size_t kMaxPatternBytes = 64u << 10;  // one regular expression
inline constexpr size_t kMaxSplitSteps = 64;           // of a normalizer or a pre-tokenizer
inline constexpr size_t kMaxEncodedBytes = 64u << 20;  // a text to encode, also once it is normalized
inline constexpr size_t kMaxTokenBytes = 1u << 16;     // one token's text

// The shard store.
inline constexpr size_t kShardChunkBytes = 1u << 20;  // of a group's bytes under one key
inline constexpr uint64_t kMaxGroupBytes = 64ull << 30;
inline constexpr size_t kMaxModelRecordBytes = 512u << 20;
inline constexpr size_t kMaxPathBytes = 4096;

// What a stage expects to take, on the wire.
inline constexpr uint32_t kForecastTokens = 9;    // places of a context, both its ends among them
inline constexpr uint32_t kForecastPrompts = 10;  // steps of 1, 2, 4 ... rows

// Groups on the wire.
inline constexpr size_t kMaxShardRangeBytes = 1u << 20;  // of one request
inline constexpr size_t kShardPartBytes = 256u << 10;    // of a range, in one frame
inline constexpr size_t kShardWindowBytes = 16u << 20;   // asked for by a fetching peer, not yet kept
inline constexpr size_t kMaxShardBytesOwed = 16u << 20;  // asked for by one peer, not yet given to its link
inline constexpr uint32_t kMaxShardReads = 8;            // of a head's disk at a time
// Read for all peers together and not yet in the system's sockets: as much as a head's memory leaves, in
// these bounds.
inline constexpr size_t kMostShardBytesHeld = 16u << 20;
inline constexpr size_t kLeastShardBytesHeld = 4u << 20;

// Archived KV.
inline constexpr uint32_t kMaxTagsPerStep = 2048;  // of completed blocks, of loaded ones, of one probe

// Configuration.
inline constexpr size_t kMaxSettingsBytes = 1u << 20;

// HTTP and templates.
inline constexpr size_t kMaxHttpHeaderBytes = 16u << 10;
inline constexpr size_t kMaxHttpBodyBytes = 16u << 20;
inline constexpr uint32_t kMaxHttpConnections = 256;
inline constexpr size_t kMaxHttpQueueBytes = 1u << 20;  // of one stream, waiting for a slow reader
inline constexpr uint32_t kMaxChoices = 64;             // prompts times n, of one API request
inline constexpr uint32_t kMaxTopLogprobs = 20;
inline constexpr uint32_t kMaxMessages = 4096;         // of one conversation
inline constexpr size_t kMaxRequestValues = 1u << 21;  // JSON values of one body
inline constexpr uint32_t kMaxLogitBias = 1024;
inline constexpr size_t kMaxTemplateBytes = 1u << 20;
inline constexpr size_t kMaxTemplateOutputBytes = 64u << 20;
inline constexpr uint64_t kMaxTemplateSteps = 20'000'000;
inline constexpr uint32_t kMaxTemplateDepth = 128;       // of blocks, brackets and calls within one another
inline constexpr uint32_t kMaxTemplateTreeDepth = 1000;  // of one expression, and of all being evaluated
inline constexpr uint32_t kMaxTemplateValueDepth = 200;  // of lists in lists
inline constexpr uint32_t kMaxTemplateInputValues = 1u << 20;
inline constexpr size_t kMaxTemplateMemoryBytes = 256u << 20;  // of texts and lists alive at once

static_assert(kMixPiecePositions % kKvBlockPositions == 0);
static_assert(kMaxRangesPerStep <= kMaxRowsPerStep);
static_assert(size_t{kMaxRowsPerStep} * kMaxRowBytes <= kMaxFrameBytes, "a whole f32 step fits one frame");
static_assert(kMaxShardRangeBytes % kShardPartBytes == 0);
static_assert(1u << (kForecastPrompts - 1) == kMaxRowsPerStep);
static_assert(kShardWindowBytes <= kMaxShardBytesOwed);
static_assert(kMaxShardRangeBytes <= kLeastShardBytesHeld && kLeastShardBytesHeld <= kMostShardBytesHeld);
static_assert(kMaxShardBytesOwed / kFragmentBytes < kMaxQueuedMessages,
              "a link takes what one peer may ask for");
static_assert(size_t{kMaxTagsPerStep} * 16 <= kMaxHeaderBytes / 2, "a probe fits a header");
static_assert(kMaxRowsPerStep / kKvBlockPositions + kMaxRangesPerStep <= kMaxTagsPerStep,
              "whatever blocks a step completes");
static_assert(kMaxTemplateOutputBytes >= kMaxHttpBodyBytes);
static_assert(kMaxEncodedBytes >= kMaxTemplateOutputBytes, "every prompt can be encoded");

}  // namespace caravan::limits
