// A plan for people and for programs.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/seconds_text.h"
#include "daemon/model_plan.h"

namespace caravan {

namespace {

using Json = nlohmann::ordered_json;
using Kind = GroupId::Kind;

constexpr Kind kKinds[] = {Kind::kEmbed, Kind::kAttention, Kind::kFeedForward, Kind::kExpert, Kind::kOutput};

const char* class_name(Kind kind) {
  switch (kind) {
    case Kind::kEmbed:
      return "embed";
    case Kind::kAttention:
      return "attention";
    case Kind::kFeedForward:
      return "feed-forward";
    case Kind::kExpert:
      return "experts";
    case Kind::kOutput:
      return "output";
  }
  return "";
}

// The groups of one kind, by where they lie.
struct ClassBytes {
  uint64_t groups = 0;
  uint64_t bytes = 0;
  uint64_t mapped = 0, resident = 0, streamed = 0, on_demand = 0, by_row = 0;
  uint64_t kept() const { return mapped + resident; }
};

ClassBytes class_bytes(const ModelPages& pages, const Plan& plan, Kind kind) {
  ClassBytes sum;
  for (size_t i = 0; i < pages.groups.size(); ++i) {
    if (pages.groups[i].kind != kind) continue;
    const uint64_t bytes = pages.bytes[i];
    ++sum.groups;
    sum.bytes += bytes;
    switch (plan.placements[i]) {
      case Placement::kMapped:
        sum.mapped += bytes;
        break;
      case Placement::kResident:
        sum.resident += bytes;
        break;
      case Placement::kStreamed:
        sum.streamed += bytes;
        break;
      case Placement::kOnDemand:
        sum.on_demand += bytes;
        break;
      case Placement::kByRow:
        sum.by_row += bytes;
        break;
    }
  }
  return sum;
}

Json put(const Prediction& pass) {
  return {{"rows", pass.rows},
          {"position", pass.position},
          {"seconds", pass.seconds},
          {"seconds_per_token", pass.seconds_a_token()},
          {"tokens_per_second", pass.tokens_a_second()},
          {"read_bytes", pass.read_bytes},
          {"read_seconds", pass.read_seconds},
          {"compute_seconds", pass.compute_seconds},
          {"hidden", pass.hidden},
          {"bound", name(pass.bound)}};
}

Json put(const PlanShares& shares) {
  return {{"weights", shares.weights},
          {"kv", shares.kv},
          {"scratch", shares.scratch},
          {"wire", shares.wire},
          {"headroom", shares.headroom}};
}

Json put(const std::optional<RamStep>& step) {
  if (!step) return nullptr;
  return {{"ram_bytes", step->ram}, {"decode_tokens_per_second", step->decode_tokens_a_second}};
}

std::string size(double bytes) {
  return to_string(Bytes{static_cast<uint64_t>(std::max(0.0, bytes))});
}

// Without exponents, however fast or slow.
std::string speed(double tokens_a_second) {
  constexpr double kSlow = 0.01;
  if (tokens_a_second > 0 && tokens_a_second < kSlow)
    return "a token in " + seconds_text(1 / tokens_a_second);
  if (tokens_a_second >= 99.95) return fmt::format("{:.0f} tokens/s", tokens_a_second);
  return fmt::format("{:.3g} tokens/s", tokens_a_second);
}

constexpr size_t kBar = 40;

// A bar of kBar cells: each part as many as its share of `whole`, at least one when it is not nothing.
std::string bar(const std::vector<std::pair<char, uint64_t>>& parts, uint64_t whole, char rest) {
  std::string cells;
  double until = 0;
  for (const auto& [mark, bytes] : parts) {
    until += static_cast<double>(bytes);
    const double share = until / static_cast<double>(std::max<uint64_t>(1, whole));
    const auto end = static_cast<size_t>(std::lround(std::min(1.0, share) * kBar));
    if (bytes > 0) cells.resize(std::max(end, std::min(kBar, cells.size() + 1)), mark);
  }
  cells.resize(kBar, rest);
  return cells;
}

class Picture {
 public:
  Picture(const Manifest& manifest, const ModelPages& pages, const Plan& plan)
      : manifest_(manifest), pages_(pages), input_(pages.input), plan_(plan) {}

  std::string draw(const std::optional<Prediction>& another_peer) {
    line("{}: {} of weights in {} groups; {} sequence{} of {} positions", manifest_.name,
         to_string(manifest_.bytes()), pages_.groups.size(), input_.sequences,
         input_.sequences == 1 ? "" : "s", input_.context);
    text_ += '\n';
    draw_ram();
    draw_disk();
    draw_classes();
    draw_speed();
    draw_more(another_peer);
    return std::move(text_);
  }

 private:
  template <class... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) {
    text_ += fmt::format(format, std::forward<Args>(args)...) + '\n';
  }

  void draw_ram() {
    const PlanShares& shares = plan_.shares;
    const uint64_t whole = input_.budgets.ram;
    const uint64_t spare = whole - shares.total();
    line("RAM  {:>9} [{}]", to_string(Bytes{whole}),
         bar({{'W', shares.weights},
              {'K', shares.kv},
              {'s', shares.scratch + shares.wire},
              {' ', spare},
              {'-', shares.headroom}},
             whole, ' '));
    line("  W weights  {:>9}  {}", to_string(Bytes{shares.weights}), weights_text());
    const uint64_t blocks = kv_blocks();
    const std::string all = blocks > plan_.kv_blocks ? fmt::format(" of {}", blocks) : "";
    line("  K kv       {:>9}  {}{} blocks of {} positions", to_string(Bytes{shares.kv}), plan_.kv_blocks, all,
         input_.block_positions);
    line("  s scratch  {:>9}", to_string(Bytes{shares.scratch}));
    if (shares.wire > 0) line("    wire     {:>9}", to_string(Bytes{shares.wire}));
    line("    not used {:>9}", to_string(Bytes{spare}));
    line("  - headroom {:>9}  never used", to_string(Bytes{shares.headroom}));
  }

  // Those of all sequences, in RAM or on disk.
  uint64_t kv_blocks() const {
    return plan_.kv_blocks + (input_.block_bytes > 0 ? plan_.kv_spilled_bytes / input_.block_bytes : 0);
  }

  std::string weights_text() const {
    if (std::find(plan_.placements.begin(), plan_.placements.end(), Placement::kMapped) !=
        plan_.placements.end())
      return "mapped from the file";
    std::string text = to_string(Bytes{plan_.resident_bytes}) + " kept";
    if (plan_.window_bytes > 0)
      text += fmt::format(", {} for groups in use or read ahead (up to {})",
                          to_string(Bytes{plan_.window_bytes}), plan_.prefetch_pages);
    if (plan_.demand_bytes > 0)
      text += fmt::format(", {} for experts in use, {} experts kept a layer ({:.0f} % hits)",
                          to_string(Bytes{plan_.demand_bytes}), plan_.cache_pages_choice,
                          plan_.expected_hit_rate * 100);
    return text;
  }

  void draw_disk() {
    if (plan_.kv_spilled_bytes > 0)
      line("Disk {:>9}  of KV at the full context, read back before it is needed",
           to_string(Bytes{plan_.kv_spilled_bytes}));
    if (plan_.decode.read_bytes > 0)
      line("Disk {:>9}  read for every pass, {} reader{} of {}", size(plan_.decode.read_bytes), plan_.readers,
           plan_.readers == 1 ? "" : "s", to_string(Bytes{plan_.read_size_bytes}));
    text_ += '\n';
  }

  void draw_classes() {
    line("{:<13}{:>7}{:>11}  in RAM (#), streamed (~), on demand (?), by row (.)", "", "groups", "bytes");
    for (Kind kind : kKinds) {
      const ClassBytes sum = class_bytes(pages_, plan_, kind);
      if (sum.groups == 0) continue;
      std::string where;
      const auto add = [&](uint64_t bytes, const char* what) {
        if (bytes == 0) return;
        where += (where.empty() ? "" : ", ") + to_string(Bytes{bytes}) + " " + what;
      };
      add(sum.mapped, "mapped");
      add(sum.resident, "resident");
      add(sum.streamed, "streamed");
      add(sum.on_demand, "on demand");
      if (sum.by_row > 0) where += where.empty() ? "by row" : ", by row";
      line("{:<13}{:>7}{:>11}  [{}] {}", class_name(kind), sum.groups, to_string(Bytes{sum.bytes}),
           bar({{'#', sum.kept()}, {'~', sum.streamed}, {'?', sum.on_demand}}, sum.bytes, '.'), where);
    }
    text_ += '\n';
  }

  void draw_speed() {
    const Prediction& decode = plan_.decode;
    line("decode   {} at position {} ({} at the start)", speed(decode.tokens_a_second()), decode.position,
         speed(plan_.decode_start.tokens_a_second()));
    line("         a pass takes {}, of compute {}", seconds_text(decode.seconds),
         seconds_text(decode.compute_seconds));
    if (decode.read_bytes > 0)
      line("         and of disk {} for {}; of the shorter of the two {:.0f} % is hidden",
           seconds_text(decode.read_seconds), size(decode.read_bytes), decode.hidden * 100);
    line("prompt   {} in steps of {} rows, bound by {}", speed(plan_.prompt.tokens_a_second()),
         plan_.prompt.rows, name(plan_.prompt.bound));
    line("bound    {}", name(decode.bound));
    line("binds    {}", plan_.binds);
  }

  void draw_more(const std::optional<Prediction>& another_peer) {
    line("least    {} of RAM", to_string(Bytes{plan_.least_ram}));
    if (plan_.next_step)
      line("more RAM with {}: {}", to_string(Bytes{plan_.next_step->ram}),
           speed(plan_.next_step->decode_tokens_a_second));
    if (plan_.all_fits)
      line("         with {} all of it fits: {}", to_string(Bytes{plan_.all_fits->ram}),
           speed(plan_.all_fits->decode_tokens_a_second));
    if (!plan_.next_step && !plan_.all_fits) line("more RAM brings nothing");
    if (another_peer)
      line("one more peer like this, half of the layers each: {}, links not counted",
           speed(another_peer->tokens_a_second()));
  }

  const Manifest& manifest_;
  const ModelPages& pages_;
  const PlanInput& input_;
  const Plan& plan_;
  std::string text_;
};

}  // namespace

std::string plan_json(const ModelPages& pages, const Plan& plan,
                      const std::optional<Prediction>& another_peer) {
  const PlanInput& input = pages.input;
  Json json = {{"ram_bytes", input.budgets.ram},
               {"context", input.context},
               {"sequences", input.sequences},
               {"shares", put(plan.shares)},
               {"floors", put(plan.floors)},
               {"least_ram_bytes", plan.least_ram},
               {"resident_bytes", plan.resident_bytes},
               {"window_bytes", plan.window_bytes},
               {"prefetch_groups", plan.prefetch_pages},
               {"expert_room_bytes", plan.demand_bytes},
               {"experts_kept_per_layer", plan.cache_pages_choice},
               {"expected_hit_rate", plan.expected_hit_rate},
               {"read_size_bytes", plan.read_size_bytes},
               {"readers", plan.readers},
               {"kv_blocks", plan.kv_blocks},
               {"kv_spilled_bytes", plan.kv_spilled_bytes},
               {"decode", put(plan.decode)},
               {"decode_start", put(plan.decode_start)},
               {"prompt", put(plan.prompt)},
               {"bound", name(plan.decode.bound)},
               {"binds", plan.binds},
               {"more_ram", put(plan.next_step)},
               {"all_fits", put(plan.all_fits)},
               {"another_peer", another_peer ? put(*another_peer) : Json()}};
  json["classes"] = Json::array();
  for (Kind kind : kKinds) {
    const ClassBytes sum = class_bytes(pages, plan, kind);
    if (sum.groups > 0)
      json["classes"].push_back({{"class", class_name(kind)},
                                 {"groups", sum.groups},
                                 {"bytes", sum.bytes},
                                 {"mapped_bytes", sum.mapped},
                                 {"resident_bytes", sum.resident},
                                 {"streamed_bytes", sum.streamed},
                                 {"on_demand_bytes", sum.on_demand},
                                 {"by_row_bytes", sum.by_row}});
  }
  json["groups"] = Json::array();
  for (size_t i = 0; i < pages.groups.size(); ++i)
    json["groups"].push_back({{"name", to_string(pages.groups[i])},
                              {"bytes", pages.bytes[i]},
                              {"placement", name(plan.placements[i])}});
  return json.dump();
}

std::string plan_picture(const Manifest& manifest, const ModelPages& pages, const Plan& plan,
                         const std::optional<Prediction>& another_peer) {
  return Picture(manifest, pages, plan).draw(another_peer);
}

}  // namespace caravan
