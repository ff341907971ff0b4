#include "model/template_input.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "shards/json_metadata.h"

namespace caravan::tmpl {
namespace {

// Counts values and depth without reading them; what is no JSON comes out wrong here and is refused by the
// parser.
void check_size(std::string_view json) {
  if (json.size() > limits::kMaxHttpBodyBytes)
    fail(ErrorCode::kLimit, "template input of {} bytes, more than {}", json.size(),
         limits::kMaxHttpBodyBytes);
  uint32_t depth = 0;
  uint32_t values = 1;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
      continue;
    }
    in_string = c == '"';
    if (c == '[' || c == '{') ++depth;
    if ((c == ']' || c == '}') && depth > 0) --depth;
    values += c == ',' || c == '[' || c == '{' || c == ':';
    if (depth > limits::kMaxJsonDepth)
      fail(ErrorCode::kLimit, "template input nested deeper than {}", limits::kMaxJsonDepth);
    if (values > limits::kMaxTemplateInputValues)
      fail(ErrorCode::kLimit, "template input of more than {} values", limits::kMaxTemplateInputValues);
  }
}

class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return add(Value::none()); }
  bool boolean(bool b) override { return add(Value::boolean(b)); }
  bool number_integer(int64_t i) override { return add(Value::integer(i)); }

  bool number_unsigned(uint64_t u) override {
    if (u <= INT64_MAX) return add(Value::integer(static_cast<int64_t>(u)));
    return add(huge(std::to_string(u)));
  }

  // An integer beyond 64 bits arrives here too, and its digits tell.
  bool number_float(double d, const std::string& digits) override {
    const bool whole = digits.find_first_of(".eE") == std::string::npos;
    return add(whole ? huge(digits) : Value::real(d));
  }

  bool string(std::string& s) override { return add(Value::constant(std::move(s))); }
  bool binary(nlohmann::json::binary_t&) override { return false; }

  bool key(std::string& s) override {
    open_.back().key = Value::constant(std::move(s));
    return true;
  }

  bool start_object(size_t) override {
    open_.push_back({std::make_shared<Dict>(), nullptr, Value()});
    return true;
  }

  bool start_array(size_t) override {
    open_.push_back({nullptr, std::make_shared<List>(), Value()});
    return true;
  }

  bool end_object() override {
    Value made = Value::object(Kind::kDict, std::move(open_.back().dict));
    open_.pop_back();
    return add(std::move(made));
  }

  bool end_array() override {
    Value made = Value::object(Kind::kList, std::move(open_.back().list));
    open_.pop_back();
    return add(std::move(made));
  }

  bool parse_error(size_t at, const std::string&, const nlohmann::json::exception& e) override {
    fail(ErrorCode::kMalformed, "template input, byte {}: {}", at, json_reason(e.what()));
  }

  const Value& root() const { return root_; }

 private:
  struct Open {
    std::shared_ptr<Dict> dict;
    std::shared_ptr<List> list;
    Value key;
  };

  static Value huge(std::string digits) {
    auto text = std::make_shared<Text>();
    text->bytes = std::move(digits);
    return Value::object(Kind::kHugeInt, std::move(text));
  }

  bool add(Value v) {
    if (open_.empty()) {
      root_ = std::move(v);
    } else if (open_.back().dict) {
      open_.back().dict->set(std::move(open_.back().key), std::move(v));
    } else {
      List& list = *open_.back().list;
      list.depth = std::max(list.depth, v.depth() + 1);
      list.items.push_back(std::move(v));
    }
    return true;
  }

  std::vector<Open> open_;
  Value root_;
};

}  // namespace

std::shared_ptr<Dict> parse_input(std::string_view json) {
  check_size(json);
  Builder builder;
  nlohmann::json::sax_parse(json.begin(), json.end(), &builder);
  if (!builder.root().is(Kind::kDict)) fail(ErrorCode::kMalformed, "template input is not a JSON object");
  return std::static_pointer_cast<Dict>(builder.root().shared());
}

}  // namespace caravan::tmpl
