#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "model/chat_template.h"

namespace caravan {
namespace {

std::string render(const std::string& source, const std::string& input = "{}") {
  return ChatTemplate::parse(source, "test").render(input, 0);
}

Error error_of(const std::string& source, const std::string& input = "{}",
               const ChatTemplateLimits& limits = {}) {
  try {
    const std::string text = ChatTemplate::parse(source, "test").render(input, 0, limits);
    ADD_FAILURE() << source << " renders";
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorCode::kCancelled, "");
}

std::string repeated(const std::string& piece, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += piece;
  return out;
}

TEST(TemplateErrors, CarryTheTemplatesOwnWords) {
  const Error error =
      error_of("{{ raise_exception('Roles must alternate: ' ~ role) }}", R"({"role": "user"})");
  EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(error.message(), "Roles must alternate: user");
}

TEST(TemplateErrors, NameTemplateAndLine) {
  const Error at_run = error_of("a\n{{ 'a' + 1 }}");
  EXPECT_EQ(at_run.code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(at_run.message().find("test, line 2: can only concatenate str (not \"int\") to str"),
            std::string::npos)
      << at_run.message();
  const Error at_parse = error_of("a\nb\n{% if x %}");
  EXPECT_EQ(at_parse.code(), ErrorCode::kMalformed);
  EXPECT_NE(at_parse.message().find("test, line 3: "), std::string::npos) << at_parse.message();
  EXPECT_NE(error_of("\n{{ messages[0].role }}").message().find("'messages' is undefined"),
            std::string::npos);
}

TEST(TemplateErrors, AreToldApart) {
  EXPECT_EQ(error_of("{% include 'other' %}").code(), ErrorCode::kUnsupported);
  EXPECT_EQ(error_of("{{ 9223372036854775807 + 1 }}").code(), ErrorCode::kUnsupported);
  EXPECT_EQ(error_of("{{ x | nosuchfilter }}").code(), ErrorCode::kMalformed);
  EXPECT_EQ(error_of("\xff").code(), ErrorCode::kMalformed);
  for (const char* bad : {"", "[]", "{", "{\"a\": \"\xff\"}", "{\"a\": nan}", "5"})
    EXPECT_EQ(error_of("x", bad).code(), ErrorCode::kMalformed) << bad;
}

TEST(TemplateLimits, StopEndlessWork) {
  ChatTemplateLimits little;
  little.steps = 200'000;
  const std::string loops = "{% for a in range(999) %}{% for b in range(999) %}{% endfor %}{% endfor %}";
  EXPECT_EQ(error_of(loops, "{}", little).code(), ErrorCode::kLimit);
  EXPECT_EQ(render(loops), "");
  EXPECT_EQ(error_of("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").code(), ErrorCode::kLimit);
  EXPECT_EQ(error_of("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}").code(), ErrorCode::kLimit);
}

TEST(TemplateLimits, StopEndlessTexts) {
  ChatTemplateLimits little;
  little.output_bytes = 1 << 20;
  for (const char* source : {
           "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
           "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
           "{{ 'a' * 100000000000 }}",
           "{{ ['a'] * 100000000000 }}",
           "{{ 'a'.center(100000000000) }}",
           "{{ ('a' * 90000).replace('', 'b' * 90000) }}",
           "{{ '%1000000000d' % 1 }}",
           "{{ '{:1000000000}'.format('') }}",
           "{{ (['x' * 90000] * 100) | join }}",
           "{{ ['x' * 90000] * 100 }}",
           "{{ [[1]] | tojson(indent='x' * 900000) }}",
           "{{ ('a\\n' * 9000) | indent('x' * 900000) }}",
       })
    EXPECT_EQ(error_of(source, "{}", little).code(), ErrorCode::kLimit) << source;
}

TEST(TemplateLimits, CountWhatIsHeld) {
  ChatTemplateLimits little;
  little.memory_bytes = 1 << 20;
  const std::string keep =
      "{% set ns = namespace(x=[]) %}{% for i in range(50) %}"
      "{% set ns.x = [ns.x[:0], 'a' * 60000, ns.x] if keep else ['a' * 60000] %}{% endfor %}ok";
  EXPECT_EQ(error_of(keep, R"({"keep": true})", little).code(), ErrorCode::kLimit);
  EXPECT_EQ(ChatTemplate::parse(keep, "test").render(R"({"keep": false})", 0, little), "ok");
}

TEST(TemplateLimits, StopDeepNesting) {
  const std::vector<std::string> sources = {
      "{{ " + repeated("(", 5000) + "1" + repeated(")", 5000) + " }}",
      "{{ " + repeated("[", 5000) + repeated("]", 5000) + " }}",
      "{{ " + repeated("not ", 5000) + "1 }}",
      "{{ " + repeated("-", 5000) + "1 }}",
      "{{ 1" + repeated(" + 1", 5000) + " }}",
      "{{ x" + repeated(".a", 5000) + " }}",
      "{{ x" + repeated("|e", 5000) + " }}",
      "{{ x" + repeated(" if 1 else x", 5000) + " }}",
      "{{ f" + repeated("(", 5000) + repeated(")", 5000) + " }}",
      "{% set " + repeated("(", 5000) + "x" + repeated(")", 5000) + " = 1 %}",
      repeated("{% if 1 %}", 5000) + repeated("{% endif %}", 5000),
      "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}",
      "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = ns.x | map('e') %}{% endfor %}",
  };
  for (const std::string& source : sources)
    EXPECT_EQ(error_of(source).code(), ErrorCode::kLimit) << source.substr(0, 60);
  EXPECT_EQ(error_of("x", "{\"a\": " + repeated("[", 99) + repeated("]", 99) + "}").code(),
            ErrorCode::kLimit);
}

TEST(TemplateLimits, AllowWhatRealTemplatesDo) {
  EXPECT_EQ(render("{{ 1" + repeated(" + 1", 400) + " }}"), "401");
  EXPECT_EQ(render(repeated("{% if 1 %}", 60) + "x" + repeated("{% endif %}", 60)), "x");
  EXPECT_EQ(
      render("{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}").size(),
      112u);
}

// Values that hold one another in a circle must still be let go: the sanitizers' leak check sees it.
TEST(TemplateValues, CirclesAreBroken) {
  EXPECT_EQ(render("{% set ns = namespace() %}{% set ns.self = ns %}{% set ns.list = [ns, [ns]] %}{{ "
                   "ns.self.self is defined }}"),
            "True");
  EXPECT_EQ(
      render(
          "{% for x in [1] %}{{ loop.changed(loop) }}{% macro m() %}{{ m is defined }}{% endmacro %}{{ m() }}"
          "{% endfor %}"),
      "TrueTrue");
  EXPECT_EQ(render("{% set ns = namespace() %}{% macro m() %}{% set ns.c = caller %}{% endmacro %}"
                   "{% macro n() %}{% set y = ns %}{% call m() %}{{ y is defined }}{% endcall %}{{ ns.c() "
                   "}}{% endmacro %}{{ n() }}"),
            "True");
  EXPECT_EQ(render("{% set ns = namespace(next=none) %}{% for i in range(90000) %}{% set ns.next = "
                   "namespace(next=ns.next) %}"
                   "{% endfor %}ok"),
            "ok");
  EXPECT_EQ(
      render(
          "{% set c = cycler(1, 2) %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.current }}"
          "{% set j = joiner('-') %}{{ j() }}{{ j() }}{{ j() }}"),
      "121None1--");
}

TEST(TemplateTime, IsTheTimeGiven) {
  const ChatTemplate chat = ChatTemplate::parse("{{ strftime_now('%d %B %Y, %H:%M:%S') }}", "test");
  EXPECT_EQ(chat.render("{}", 0), "01 January 1970, 00:00:00");
  EXPECT_EQ(chat.render("{}", 951782400), "29 February 2000, 00:00:00");
}

TEST(ChatTemplate, RendersInManyThreadsAtOnce) {
  const ChatTemplate chat = ChatTemplate::parse(
      "{% macro show(m) %}<{{ m.role }}>{{ m.content | trim }}{% endmacro %}"
      "{% for m in messages %}{{ show(m) }}{{ 'é' * loop.index }}{% endfor %}",
      "test");
  const std::string input =
      R"({"messages": [{"role": "user", "content": " a "}, {"role": "assistant", "content": "b"}]})";
  std::vector<std::thread> threads;
  std::vector<std::string> texts(4);
  for (std::string& text : texts)
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) text = chat.render(input, 0);
    });
  for (std::thread& thread : threads) thread.join();
  for (const std::string& text : texts) EXPECT_EQ(text, "<user>aé<assistant>béé");
}

}  // namespace
}  // namespace caravan
