#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/template_value.h"

// A parsed template: constant after parsing, so any number of threads may walk it.
namespace caravan::tmpl {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Expression {
  enum class Kind : uint8_t {
    kConstant,     // constant
    kName,         // symbol, name
    kList,         // children
    kTuple,        // children
    kDict,         // children: key, value, key, value, ...
    kAttribute,    // children: object; name
    kItem,         // children: object, key
    kSlice,        // children: object, start, stop, step; the last three may be null
    kCall,         // children: callee, arguments...; named, spread
    kFilter,       // children: input (null in a filter block), arguments...; name, function, named, spread
    kTest,         // as kFilter
    kNot,          // children: operand
    kNegate,       // children: operand
    kPositive,     // children: operand
    kBinary,       // children: left, right; operators: one
    kCompare,      // children: operands; operators: one less
    kAnd,          // children: left, right
    kOr,           // children: left, right
    kConcatenate,  // children: parts
    kConditional,  // children: condition, value, other value (may be null)
  };

  Kind kind = Kind::kConstant;
  uint32_t line = 1;
  uint32_t depth = 1;   // of the tree below, at most kMaxTemplateTreeDepth
  uint32_t symbol = 0;  // index into Tree::symbols
  std::string name;
  Value constant;
  NativeFunction function = nullptr;  // null for a filter or test that nobody knows
  std::vector<Operator> operators;
  std::vector<ExpressionPtr> children;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr spread;        // *arguments
  ExpressionPtr named_spread;  // **arguments
};

// What an assignment writes to.
struct Target {
  enum class Kind : uint8_t { kName, kAttribute, kTuple };
  Kind kind = Kind::kName;
  uint32_t line = 1;
  uint32_t symbol = 0;
  std::string attribute;      // kAttribute: of the namespace that `symbol` names
  std::vector<Target> items;  // kTuple
};

struct Statement;
using StatementPtr = std::unique_ptr<Statement>;
using Body = std::vector<StatementPtr>;

struct Parameter {
  std::string name;
  uint32_t symbol = 0;
  ExpressionPtr default_value;  // may be null
};

struct Statement {
  enum class Kind : uint8_t {
    kOutput,       // expressions
    kFor,          // target, expressions: what to go through; condition (may be null); body, other; recursive
    kIf,           // expressions: conditions; branches: one for each, and one more for `else`
    kSet,          // target, expressions: value
    kSetBlock,     // target, expressions: filters (or none); body
    kMacro,        // name, symbol, parameters, body, uses_*
    kCall,         // parameters, body, uses_*; expressions: the call
    kFilterBlock,  // expressions: filters; body
    kWith,         // targets, expressions: values; body
    kBlock,        // name, scoped, body
    kScope,        // body
    kAutoEscape,   // expressions: whether; body
    kBreak,
    kContinue,
    kRefused,  // name: a tag that needs other templates
  };

  Kind kind = Kind::kOutput;
  uint32_t line = 1;
  std::string name;
  uint32_t symbol = 0;
  std::vector<ExpressionPtr> expressions;
  ExpressionPtr condition;
  Target target;
  std::vector<Target> targets;
  std::vector<Parameter> parameters;
  Body body;
  Body other;
  std::vector<Body> branches;
  bool recursive = false;
  bool scoped = false;
  bool uses_caller = false;
  bool uses_varargs = false;
  bool uses_kwargs = false;
};

struct Tree {
  Body body;
  std::vector<const Statement*> blocks;
  std::vector<std::string> symbols;  // every name that the template mentions
  uint32_t loop = 0, caller = 0, varargs = 0, kwargs = 0, self = 0,
           super = 0;  // the symbols of special names
};

}  // namespace caravan::tmpl
