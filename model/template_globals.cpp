#include <array>
#include <ctime>
#include <utility>

#include "model/template_arguments.h"
#include "model/template_eval.h"
#include "model/template_methods.h"

// The functions that every template sees: Jinja's own, and the two that chat templates are given.
namespace caravan::tmpl {
namespace {

constexpr int64_t kMaxRange = 100'000;  // Jinja's sandbox has the same
constexpr int64_t kMaxRangeBound = int64_t{1} << 60;

Value range(Interpreter& in, const Value&, const Arguments& arguments) {
  const Bound bound("range", arguments, {"start", "stop", "step"}, 1);
  if (!arguments.named.empty()) raise("range() takes no keyword arguments");
  const int64_t start = bound.has(1) ? bound.integer(0, 0) : 0;
  const int64_t stop = bound.has(1) ? bound.integer(1, 0) : bound.integer(0, 0);
  const int64_t step = bound.integer(2, 1);
  if (step == 0) raise("range() arg 3 must not be zero");
  for (int64_t value : {start, stop, step})
    if (value > kMaxRangeBound || value < -kMaxRangeBound)
      fail(ErrorCode::kUnsupported, "a range up to {}", value);
  Value made = in.range(start, stop, step);
  if (*length(made) > kMaxRange) raise("Range too big. The sandbox blocks ranges larger than {}.", kMaxRange);
  return made;
}

// What dict(...) takes: pairs or a dictionary, then names.
std::shared_ptr<Dict> make_dict(Interpreter& in, std::string_view function, const Arguments& arguments) {
  if (arguments.positional.size() > 1) raise("{} expected at most 1 argument", function);
  auto made = std::make_shared<Dict>();
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.is_undefined()) raise("{}", source.as<Undefined>().message());
    const Value pairs = source.is(Kind::kDict) ? in.view(source, View::Part::kItems) : source;
    for (const Value& pair : in.collect(pairs)) {
      const std::vector<Value> parts = in.collect(pair);
      if (parts.size() != 2)
        raise("dictionary update sequence element has length {}; 2 is required", parts.size());
      check_key(parts[0]);
      made->set(parts[0], parts[1]);
    }
  }
  for (const auto& [name, value] : arguments.named) made->set(in.text(name), value);
  return made;
}

Value dict(Interpreter& in, const Value&, const Arguments& arguments) {
  return in.dict(make_dict(in, "dict", arguments));
}

Value make_namespace(Interpreter& in, const Value&, const Arguments& arguments) {
  std::vector<std::pair<std::string, Value>> attributes;
  const std::shared_ptr<Dict> entries = make_dict(in, "namespace", arguments);
  for (const auto& [key, value] : entries->entries)
    if (key.is_string()) attributes.emplace_back(key.text(), value);
  return in.make_namespace(std::move(attributes));
}

// A cycler is a namespace with functions; what only they use has names that no template can write.
constexpr std::string_view kItems = " items";
constexpr std::string_view kPosition = " position";

void cycle_to(Namespace& cycler, int64_t position) {
  const auto& items = cycler.find(kItems)->items();
  *cycler.find(kPosition) = Value::integer(position % static_cast<int64_t>(items.size()));
  *cycler.find("current") = items[static_cast<size_t>(cycler.find(kPosition)->as_int())];
}

Value cycler_next(Interpreter&, const Value& self, const Arguments&) {
  Namespace& cycler = self.as<Namespace>();
  Value now = *cycler.find("current");
  cycle_to(cycler, cycler.find(kPosition)->as_int() + 1);
  return now;
}

Value cycler_reset(Interpreter&, const Value& self, const Arguments&) {
  cycle_to(self.as<Namespace>(), 0);
  return Value::none();
}

Value cycler(Interpreter& in, const Value&, const Arguments& arguments) {
  if (arguments.positional.empty()) raise("at least one item has to be provided");
  const Value made = in.make_namespace({});
  made.as<Namespace>().attributes = {{std::string(kItems), in.list(arguments.positional)},
                                     {std::string(kPosition), Value::integer(0)},
                                     {"current", arguments.positional[0]},
                                     {"next", in.function("next", cycler_next, made)},
                                     {"reset", in.function("reset", cycler_reset, made)}};
  return made;
}

Value joiner_call(Interpreter& in, const Value& self, const Arguments&) {
  Value& separator = self.as<Namespace>().attributes[0].second;
  Value& now = self.as<Namespace>().attributes[1].second;
  return std::exchange(now, separator).is_missing() ? in.text("") : separator;
}

Value joiner(Interpreter& in, const Value&, const Arguments& arguments) {
  const Bound bound("joiner", arguments, {"sep"});
  const Value state =
      in.make_namespace({{"sep", bound.has(0) ? bound[0] : in.text(", ")}, {"used", Value()}});
  return in.function("joiner", joiner_call, state);
}

Value raise_exception(Interpreter& in, const Value&, const Arguments& arguments) {
  const Bound bound("raise_exception", arguments, {"message"}, 1);
  throw RaisedByTemplate(ErrorCode::kInvalidArgument, in.str(bound[0]));
}

// One directive of strftime, without a width, so that the result is short.
void append_time(std::string& out, const std::tm& time, std::string_view flags, char directive) {
  static constexpr std::string_view kKnown = "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyY%";
  if (directive == 'f') {
    out += "000000";
  } else if (directive == 'z' || directive == 'Z') {
    return;  // the time carries no zone
  } else if (kKnown.find(directive) == std::string_view::npos) {
    out += '%';
    out += flags;
    out += directive;
  } else {
    const std::string format = "%" + std::string(flags) + directive;
    char buffer[128];
    out.append(buffer, std::strftime(buffer, sizeof buffer, format.c_str(), &time));
  }
}

Value strftime_now(Interpreter& in, const Value&, const Arguments& arguments) {
  const Bound bound("strftime_now", arguments, {"format"}, 1);
  const std::string_view format = bound.text(0, "");
  const std::time_t now = in.now_unix_seconds();
  std::tm time{};
  if (!gmtime_r(&now, &time)) raise("the time {} has no date", in.now_unix_seconds());
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      out += format[i];
      continue;
    }
    size_t end = i + 1;
    while (end + 1 < format.size() && end < i + 4 &&
           std::string_view("-_0^#").find(format[end]) != std::string_view::npos)
      ++end;
    append_time(out, time, format.substr(i + 1, end - i - 1), format[end]);
    in.meter().fits(out.size());
    i = end;
  }
  return in.text(std::move(out));
}

Value lipsum(Interpreter&, const Value&, const Arguments&) {
  fail(ErrorCode::kUnsupported, "lipsum is not supported");
}

using Entry = std::pair<std::string_view, NativeFunction>;
constexpr std::array<Entry, 8> kGlobals = {{{"range", range},
                                            {"dict", dict},
                                            {"namespace", make_namespace},
                                            {"cycler", cycler},
                                            {"joiner", joiner},
                                            {"lipsum", lipsum},
                                            {"raise_exception", raise_exception},
                                            {"strftime_now", strftime_now}}};

}  // namespace

Value find_global(Interpreter& in, std::string_view name) {
  for (const auto& [key, function] : kGlobals)
    if (key == name) return in.function(std::string(name), function, Value::none());
  return Value();
}

}  // namespace caravan::tmpl
