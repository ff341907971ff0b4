#include "daemon/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>

#include "base/error.h"
#include "base/limits.h"
#include "base/nearest.h"
#include "daemon/command_help.h"
#include "daemon/number_text.h"
#include "daemon/standard_output.h"
#include "daemon/version.h"

namespace caravan {

namespace {

std::vector<TokenId> parse_ids(const std::string& flag, const std::string& text) {
  std::vector<TokenId> ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    TokenId id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc() || (next != end && *next != ',') || next + 1 == end)
      throw CLI::ValidationError(flag, "\"" + text + "\" is no list of token ids like 1,2,3");
    ids.push_back(id);
    if (ids.size() > limits::kMaxContext) throw CLI::ValidationError(flag, "too many token ids");
    at = next == end ? next : next + 1;
  }
  return ids;
}

// "8k" as 8192; other text is left to the option's own check.
std::string in_thousands(std::string& text) {
  uint32_t thousands = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, thousands);
  if (error == std::errc() && stop + 1 == end && (*stop == 'k' || *stop == 'K'))
    text = std::to_string(uint64_t{thousands} * 1024);
  return "";
}

// CLI11's own conversions cut and saturate, and their errors tell no range.
CLI::Validator integer(uint64_t least, uint64_t most) {
  const bool bounded = most < UINT32_MAX;
  return {[=](std::string& text) { return refuse_integer(text, least, most); },
          bounded ? fmt::format("{}..{}", least, most) : ""};
}
CLI::Validator number(float least, float most) {
  return {[=](std::string& text) { return refuse_number(text, least, most); },
          fmt::format("{}..{}", least, most)};
}
CLI::Validator number(SamplingRange range) {
  return number(range.least, range.most);
}

// Flags that belong to every command that loads or serves a model. A flag that was given is kept as an
// override, to be laid over the configuration file once that has been read.
class Parser {
 public:
  Parser() : app_(about_text(), "caravan") {
    app_.set_version_flag("--version", version_text());
    app_.require_subcommand(1);
    app_.fallthrough(false);
    add_run();
    add_serve();
    add_join();
    add_demo();
    add_client_commands();
    add_model_commands();
    add_plan_commands();
    add_store_commands();
  }

  CommandLine parse(int argc, const char* const* argv) {
    app_.parse(argc, argv);
    line_.config = config_path_.empty() ? Config() : load_config(config_path_);
    for (const auto& apply : overrides_) apply(line_.config);
    // As in the API: an empty text would stop everything before it starts.
    std::erase(line_.stop, "");
    return std::move(line_);
  }
  // Prints what was asked for, or what is wrong and the way out.
  int exit(const CLI::ParseError& error) const;

 private:
  CLI::App* command(const char* name, const char* about, CommandLine::Command which) {
    CLI::App* sub = app_.add_subcommand(name, about);
    sub->callback([this, which] { line_.command = which; });
    sub->footer(examples_of(name));
    sub->set_version_flag("--version", version_text());
    sub->add_option("--config", config_path_, "a configuration file; configs/caravan.toml shows every key");
    flag<std::string>(sub, "--log", "debug, info, warning, error or off",
                      [](Config& c, const std::string& v) { c.log_level = v; })
        ->check(CLI::IsMember({"debug", "info", "warning", "error", "off"}));
    return sub;
  }

  // An option whose value, when given, overrides the configuration file.
  template <class Value, class Set>
  CLI::Option* flag(CLI::App* sub, const char* name, const char* about, Set set) {
    auto value = std::make_shared<Value>();
    CLI::Option* option = sub->add_option(name, *value, about);
    overrides_.push_back([option, value, set](Config& config) {
      if (option->count() > 0) set(config, *value);
    });
    return option;
  }

  void add_state(CLI::App* sub) {
    flag<std::string>(sub, "--state",
                      "folder for keys, pinned peers and the like (default ~/.local/state/caravan)",
                      [](Config& c, const std::string& v) { c.state = v; });
  }

  void add_threads(CLI::App* sub, const char* about) {
    flag<uint32_t>(sub, "--threads", about, [](Config& c, uint32_t v) {
      c.threads = v;
    })->check(integer(1, 1024));
  }

  void add_isa(CLI::App* sub) {
    flag<std::string>(sub, "--isa", "auto, avx512, avx2 or scalar: the instruction set, same bits in each",
                      [](Config& c, const std::string& v) { c.isa = v; })
        ->check(CLI::IsMember({"auto", "avx512", "avx2", "scalar"}));
  }

  void add_engine(CLI::App* sub,
                  const char* name_about = "the model's id in the API (default: the file's stem)") {
    add_threads(sub, "compute threads (default: the cores; in demo, cores / peers each)");
    flag<std::string>(sub, "--kv-type",
                      "f32 or f16: how keys and values are kept (default f32; in join the ring decides)",
                      [](Config& c, const std::string& v) { c.kv_type = v; })
        ->check(CLI::IsMember({"f32", "f16"}));
    flag<uint32_t>(sub, "--context",
                   "positions of one sequence, also as 8k (default: the model's, at most 4096)",
                   [](Config& c, uint32_t v) { c.context = v; })
        ->transform(CLI::Validator(in_thousands, ""))
        ->check(integer(1, limits::kMaxContext));
    flag<std::string>(sub, "--ram",
                      "memory of this process for weights, keys and values: 4GiB, or 50% of the machine's "
                      "(default: three quarters of what is free); weights that do not fit are streamed",
                      [](Config& c, const std::string& v) { c.ram = v; });
    flag<std::string>(sub, "--kv-ram", "of it, what keys and values may take at most",
                      [](Config& c, const std::string& v) { c.kv_ram = v; });
    flag<std::string>(sub, "--disk", "what the store and KV on disk may take: 20GiB, or 50% of the disk",
                      [](Config& c, const std::string& v) { c.disk = v; });
    flag<std::string>(
        sub, "--archive",
        "what KV of prompts seen before may take in the state folder: 20GiB, or 10% of the disk; 0 "
        "keeps none and removes what there is (default: an eighth of what is free, at most 16GiB)",
        [](Config& c, const std::string& v) { c.archive = v; });
    flag<std::string>(sub, "--archive-day", "how much of that may be written in a day (default: no bound)",
                      [](Config& c, const std::string& v) { c.archive_day = v; });
    flag<std::string>(sub, "--name", name_about, [](Config& c, const std::string& v) { c.name = v; });
    flag<double>(sub, "--peer-timeout", "seconds of silence after which a peer counts as lost (default 10)",
                 [](Config& c, double v) { c.peer_timeout_s = v; })
        ->check(number(0.1f, 3600));
    add_isa(sub);
    sub->add_flag_callback(
        "--exact", [this] { overrides_.push_back([](Config& c) { c.exact = true; }); },
        "multiply with f32 activations instead of 8-bit ones: slower, for comparisons");
    add_state(sub);
  }

  void add_ring(CLI::App* sub) {
    flag<std::string>(sub, "--codec",
                      "f32 (exact), bf16 or int8: how rows are packed between peers (default bf16)",
                      [this](Config& c, const std::string& v) {
                        c.codec = v;
                        line_.codec_given = true;
                      })
        ->check(CLI::IsMember({"f32", "bf16", "int8"}));
  }

  void add_api(CLI::App* sub) {
    flag<std::string>(sub, "--api",
                      "HOST:PORT of the HTTP API (default 127.0.0.1:8080; port 0 picks a free one)",
                      [this](Config& c, const std::string& v) {
                        c.api = v;
                        line_.api_given = true;
                      });
    flag<std::string>(sub, "--api-key",
                      "clients must send this key; needed when --api is not a loopback address",
                      [](Config& c, const std::string& v) { c.api_key = v; });
  }

  void add_sampling(CLI::App* sub) {
    SamplingOptions& sampling = line_.sampling;
    const auto add = [sub](const char* name, auto& value, const CLI::Validator& range, const char* about) {
      sub->add_option(name, value, about)->check(range)->capture_default_str();
    };
    add("--temp", sampling.temperature, number(kTemperatureRange),
        "temperature; 0 always takes the likeliest token");
    add("--top-k", sampling.top_k, integer(0, UINT32_MAX), "keep the k likeliest tokens; 0 keeps all");
    add("--top-p", sampling.top_p, number(kTopPRange),
        "keep the likeliest tokens that sum to p; 0 keeps the likeliest alone");
    add("--min-p", sampling.min_p, number(kMinPRange),
        "drop tokens under min-p of the likeliest one's probability");
    add("--repetition-penalty", sampling.repetition_penalty, number(kRepetitionRange), "over 1: repeat less");
    add("--presence-penalty", sampling.presence_penalty, number(kPenaltyRange),
        "taken off tokens that occurred");
    add("--frequency-penalty", sampling.frequency_penalty, number(kPenaltyRange),
        "taken off for every time a token occurred");
    add("--seed", sampling.seed, integer(0, UINT64_MAX), "the same seed draws the same text");
  }

  // What children of this program are told (daemon/child_flags.h): not for people.
  void add_child(CLI::App* sub) {
    sub->add_flag("--until-eof", line_.until_eof, "end when standard input closes")->group("");
    sub->add_option("--library", line_.library, "the state folder that imported the model")->group("");
  }

  void add_run() {
    CLI::App* sub =
        command("run", "Generate text here and exit: text to standard output, statistics to standard error",
                CommandLine::Command::kRun);
    model_option(sub)->required();
    auto* prompt = sub->add_option("-p,--prompt", line_.prompt, "the text to continue");
    auto* ids = sub->add_option_function<std::string>(
        "--ids", [this](const std::string& text) { line_.ids = parse_ids("--ids", text); },
        "token ids to continue, as 1,2,3");
    ids->excludes(prompt);
    sub->add_option("-n,--tokens", line_.tokens, "how many tokens to generate")
        ->check(integer(0, UINT32_MAX))
        ->capture_default_str();
    sub->add_option("--stop", line_.stop, "end before this text; may be given several times")
        ->take_all()
        ->allow_extra_args(false);
    sub->add_flag("--ignore-end", line_.ignore_end, "go on past the end token");
    sub->add_flag(
        "--json", line_.json,
        "print one object: prompt_ids, ids, text, finish (stop or length), token_ms (of each token), "
        "wire_bytes, disk_bytes (read and written, of weights and KV; this and the next are sums over the "
        "processes of --peers, too), kv_bytes_written, kv_bytes_read, kv_bytes_archived, kv_wait_ms, "
        "peak_memory_bytes, plan (where weights and KV of this process lie), weights_streamed (of the prompt "
        "and of the tokens after the first: read_bytes, read_seconds, and the share of them hidden behind "
        "computing), peers (of each process of --peers name, these figures and plan), model, codec, exact "
        "and stages");
    sub->add_option("--logits", line_.logits_path,
                    "write the f32 logits of every position of the prompt to this file")
        ->check(CLI::Validator(
            [](const std::string& path) {
              return path == "-" ? "standard output is for the text; name a file" : "";
            },
            ""));
    sub->add_option("--peers", line_.peers, "share the layers among N processes of this machine")
        ->check(integer(1, limits::kMaxPeers));
    add_sampling(sub);
    add_engine(sub);
    add_ring(sub);
  }

  void add_calibrate(CLI::App* sub) {
    sub->add_flag_callback(
        "--no-calibrate", [this] { overrides_.push_back([](Config& c) { c.calibrate = false; }); },
        "do not measure this machine at the first start (seconds; the head's status then lacks what was "
        "expected)");
  }

  void add_serve() {
    CLI::App* sub =
        command("serve", "Serve a model: the API, the scheduler, and the layers that no peer takes",
                CommandLine::Command::kServe);
    model_option(sub)->required();
    flag<std::string>(sub, "--listen",
                      "HOST:PORT where peers connect (default 0.0.0.0:7420; strangers get nothing there)",
                      [](Config& c, const std::string& v) { c.listen = v; });
    add_calibrate(sub);
    add_child(sub);
    add_api(sub);
    add_engine(sub);
    add_ring(sub);
  }

  void add_join() {
    CLI::App* sub = command("join", "Lend this machine to a ring", CommandLine::Command::kJoin);
    sub->add_option("TICKET", line_.ticket, "what `caravan invite` printed; - reads it from standard input")
        ->required();
    sub->add_option("--model", line_.model,
                    "the head's model, where this machine has it (path or name); without it the weights that "
                    "this machine is to host come from the head, and stay in the state folder");
    flag<std::string>(sub, "--fetch-limit", "fetch weights no faster than this: 10MiB/s (default: no bound)",
                      [](Config& c, const std::string& v) { c.fetch_limit = v; });
    flag<std::string>(sub, "--listen",
                      "HOST:PORT where neighbours connect (default: an address they can reach, free port)",
                      [](Config& c, const std::string& v) { c.listen = v; });
    add_calibrate(sub);
    add_child(sub);
    sub->add_option("--sharers", line_.sharers, "processes of this kind on the machine")
        ->check(integer(1, limits::kMaxPeers))
        ->group("");
    sub->add_option("--archive-folder", line_.archive_folder, "where KV is archived")->group("");
    sub->add_option("--account", line_.account_file, "where to leave what was moved and taken, at the end")
        ->group("");
    add_engine(sub, "this peer's name in the ring's status (default: the machine's)");
  }

  void add_demo() {
    CLI::App* sub =
        command("demo", "A ring on this machine: a head and N peer processes, serving until Ctrl-C",
                CommandLine::Command::kDemo);
    line_.peers = 0;
    sub->add_option("MODEL", line_.model,
                    "a .gguf file, a Hugging Face folder or an imported name (default "
                    "configs/demo/demo.gguf)");
    sub->add_option("--peers", line_.peers, "how many peer processes (default 3)")
        ->check(integer(1, limits::kMaxPeers));
    add_api(sub);
    add_engine(sub);
    add_ring(sub);
  }

  void add_client_commands() {
    CLI::App* status =
        command("status", "Show the running ring: peers, stages, speeds", CommandLine::Command::kStatus);
    status->add_flag("--json", line_.json, "print the API's object as it is");
    CLI::App* chat = command("chat", "Talk to a running daemon", CommandLine::Command::kChat);
    chat->add_option("--system", line_.system_prompt, "a system message");
    chat->add_option_function<float>(
            "--temp",
            [this](float value) {
              line_.sampling.temperature = value;
              line_.temperature_given = true;
            },
            "temperature (default: the daemon's)")
        ->check(number(0, 2));  // what the API takes
    CLI::App* invite =
        command("invite", "Print a ticket that admits one peer, once", CommandLine::Command::kInvite);
    invite->add_option("--minutes", line_.ticket_minutes, "how long the ticket is good")
        ->capture_default_str()
        ->check(integer(1, 10080));
    for (CLI::App* sub : {status, chat, invite}) {
      add_state(sub);
      add_api(sub);
    }
  }

  void add_plan_commands() {
    CLI::App* calibrate = command(
        "calibrate", "Measure this machine: memory, arithmetic, disk; kept in the state folder for plans",
        CommandLine::Command::kCalibrate);
    calibrate->add_option("MODEL", line_.model,
                          "a file whose disk is measured, again if need be (default: the state folder's)");
    calibrate->add_flag("--force", line_.force, "measure again what is kept already");
    calibrate->add_flag("--json", line_.json, "print one object instead of the table");
    calibrate->add_flag("--until-eof", line_.until_eof, "end when standard input closes")->group("");
    add_isa(calibrate);
    add_state(calibrate);

    CLI::App* plan = command(
        "plan",
        "Show where a model's weights would lie under a budget, and how fast it would be; loads nothing",
        CommandLine::Command::kPlan);
    model_option(plan)->required();
    plan->add_option("--sequences", line_.sequences, "that run at once")
        ->capture_default_str()
        ->check(integer(1, limits::kMaxSequences));
    plan->add_flag("--json", line_.json, "print one object instead of the picture");
    add_engine(plan);
  }

  void add_model_commands() {
    CLI::App* quantize = command("quantize", "Write a model as a GGUF file of a smaller type",
                                 CommandLine::Command::kQuantize);
    quantize->add_option("SOURCE", line_.model, "a .gguf file or a Hugging Face folder")->required();
    quantize->add_option("OUT", line_.output, "the .gguf file to write")->required();
    quantize->add_option("--type", line_.type, "q8_0, q4_0 or f16")
        ->capture_default_str()
        ->check(CLI::IsMember({"q8_0", "q4_0", "f16"}));
    quantize->add_flag("--force", line_.force, "write over OUT even if it is no GGUF file");
    add_threads(quantize, "threads (default: the cores)");

    CLI::App* tokenize =
        command("tokenize", "Turn text into token ids, or back", CommandLine::Command::kTokenize);
    tokenize
        ->add_option("MODEL", line_.model,
                     "a .gguf file (a vocabulary alone will do), a Hugging Face folder or an imported name")
        ->required();
    add_state(tokenize);
    tokenize->add_option_function<std::string>(
        "TEXT",
        [this](const std::string& text) {
          line_.input = text;
          line_.text_given = true;
        },
        "the text; - reads standard input");
    tokenize->add_flag("--json", line_.json, "print {\"ids\": [...]}");
    tokenize->add_flag("--bos", line_.bos, "begin with the start token");
    tokenize->add_flag("--special", line_.special, "special tokens written out in the text become their ids");
    tokenize->add_option_function<std::string>(
        "--decode", [this](const std::string& text) { line_.decode = parse_ids("--decode", text); },
        "token ids to turn into text");

    CLI::App* inspect = command("inspect", "Show what a model file holds: family, groups, types, sizes",
                                CommandLine::Command::kInspect);
    model_option(inspect)->required();
    add_state(inspect);
    inspect->add_flag("--json", line_.json, "print one object");

    CLI::App* render = command("template", "Render a chat template", CommandLine::Command::kTemplate);
    render->add_option("FILE", line_.model, "the Jinja template")->required();
    render->add_option("INPUT", line_.input, "a JSON object of its variables; - reads standard input")
        ->required();
    render
        ->add_option("--now", line_.now,
                     "what strftime_now takes for the time, in seconds since 1970 (default: the clock)")
        ->check(CLI::Validator(
            [](std::string& text) { return refuse_signed_integer(text, INT64_MIN, INT64_MAX); }, ""))
        ->envname("SOURCE_DATE_EPOCH");

    CLI::App* bench =
        command("bench", "Measure this machine, a hop on the loopback, and a model if one is named",
                CommandLine::Command::kBench);
    model_option(bench);
    bench->add_flag("--json", line_.json, "print one object instead of the tables");
    CLI::Option* pages = bench->add_flag(
        "--pages", line_.pages,
        "instead: MODEL under half and a quarter of the RAM it needs, from its file and from a store; a "
        "prompt seen before, after kill -9 and a restart; fetching the weights over the loopback; beside the "
        "raw speed of the disk. The state folder needs room for a copy");
    bench->add_option("--repeats", line_.repeats, "with --pages: of each measurement; medians count")
        ->capture_default_str()
        ->check(integer(1, 1000))
        ->needs(pages);
    bench->add_option("--seconds", line_.seconds, "with --pages: that each rate is measured")
        ->capture_default_str()
        ->check(number(0.01f, 3600))
        ->needs(pages);
    bench->add_option("--prompt-tokens", line_.prompt_tokens, "with --pages: of the prompt seen before")
        ->capture_default_str()
        ->check(integer(limits::kKvBlockPositions, limits::kMaxContext / 2))
        ->needs(pages);
    add_engine(bench);
  }

  void add_store_commands() {
    CLI::App* import =
        command("import", "Keep a model by its name: its groups by hash, its bytes where they are",
                CommandLine::Command::kImport);
    import->add_option("MODEL", line_.model, "a .gguf file or a Hugging Face folder")->required();
    import->add_flag("--copy", line_.copy, "copy the weights into the store, so that the file is not needed");
    flag<std::string>(import, "--name", "call it so (default: the file's stem)",
                      [](Config& c, const std::string& v) { c.name = v; });
    flag<std::string>(import, "--disk",
                      "what the store may take: 20GiB, or 50% of the disk (default: no limit)",
                      [](Config& c, const std::string& v) { c.disk = v; });
    CLI::App* list = command("ls", "List the imported models", CommandLine::Command::kList);
    list->add_flag("--json", line_.json, "print one object");
    CLI::App* verify =
        command("verify", "Hash every weight of the imported models again, and mend what can be mended",
                CommandLine::Command::kVerify);
    verify->add_option("MODEL", line_.model, "an imported model's name (default: all)");
    CLI::App* remove = command("rm", "Forget an imported model and free the space of its copied weights",
                               CommandLine::Command::kRemove);
    auto* model = remove->add_option("MODEL", line_.model, "an imported model's name");
    auto* unused = remove->add_flag("--unused", line_.unused, "only what unfinished imports left behind");
    model->excludes(unused);
    for (CLI::App* sub : {import, list, verify, remove}) add_state(sub);
  }

  // MODEL of the commands that read one.
  CLI::Option* model_option(CLI::App* sub) {
    return sub->add_option("MODEL", line_.model,
                           "a .gguf file, a Hugging Face folder, or the name of an imported model");
  }

  CLI::App app_;
  CommandLine line_;
  std::string config_path_;
  std::vector<std::function<void(Config&)>> overrides_;
};

// The name of a flag as it was typed, without its value.
std::string flag_of(const std::string& word) {
  return word.substr(0, word.find('='));
}

std::string nearest_flag(const CLI::App& app, const std::string& typed) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) names.push_back("-" + name);
  }
  return did_you_mean(typed, {names.begin(), names.end()});
}

// What of the words that nothing took is wrong; empty when every word was taken.
std::string complaint(const CLI::App& app, const std::string& command) {
  constexpr size_t kShown = 64;
  const std::vector<std::string> words = app.remaining();
  for (const std::string& word : words) {
    if (word.size() < 2 || word[0] != '-') continue;
    const std::string flag = flag_of(word).substr(0, kShown);
    return "unknown flag '" + flag + "'" + nearest_flag(app, flag);
  }
  if (words.empty()) return "";
  const std::string word = words.front().substr(0, kShown);
  if (!command.empty()) return "'" + word + "' is one argument too many";
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(sub->get_name());
  return "unknown command '" + word + "'" + did_you_mean(word, {names.begin(), names.end()});
}

int Parser::exit(const CLI::ParseError& error) const {
  if (error.get_exit_code() == 0) return app_.exit(error);
  const std::vector<CLI::App*> given = app_.get_subcommands();
  const CLI::App& app = given.empty() ? app_ : *given.front();
  const std::string command = given.empty() ? "" : app.get_name();
  std::string what;
  if (dynamic_cast<const CLI::ExtrasError*>(&error) || dynamic_cast<const CLI::RequiredError*>(&error))
    what = complaint(app, command);
  if (what.empty() && given.empty()) what = "name a command, such as run or serve";
  if (what.empty()) what = error.what();
  const std::string name = command.empty() ? "caravan" : "caravan " + command;
  std::fprintf(stderr, "%s: %s\n'%s --help' shows %s\n", name.c_str(), what.c_str(), name.c_str(),
               command.empty() ? "every command" : "every flag, with examples");
  return 2;
}

}  // namespace

CommandLine parse_command_line(int argc, const char* const* argv) {
  Parser parser;
  try {
    return parser.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int status = parser.exit(error);
    std::exit(flush_standard_output(status == 0 ? 0 : 2));
  }
}

}  // namespace caravan
